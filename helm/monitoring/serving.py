"""Requests that workers answer: how long people wait, what is refused, and adapters that come and go."""

from helm.monitoring.panels import Built, curve
from helm.monitoring.promql import OF, rate


def quantile(q: float, family: str) -> str:
    return f"histogram_quantile({q}, sum by (le, model) (rate({family}_bucket{{{OF}}}[$__rate_interval])))"


def requests() -> list[Built]:
    return [
        curve(
            "How long until the first token, and between two?",
            "p99 of streamed requests; first tokens that come late with few in the queue are long prompts or training.",
            "s",
            (quantile(0.99, "onward_serve_first_token_seconds"), "{{model}} first"),
            (quantile(0.99, "onward_serve_inter_token_seconds"), "{{model}} next"),
            (quantile(0.99, "onward_serve_wait_seconds"), "{{model}} queued"),
        ),
        curve(
            "Tokens of requests a second",
            "Generated, and of prompts computed and found in the cache.",
            "cps",
            (rate("onward_serve_tokens_total"), "{{model}} generated"),
            (rate("onward_serve_prompt_tokens_total", "model, outcome"), "{{model}} prompt, {{outcome}}"),
        ),
        curve(
            "Tokens that wait, requests that run",
            "Good is a queue far below ONWARD_SERVE_QUEUE_TOKENS: beyond it requests are refused.",
            "short",
            (f"sum by (model) (onward_serve_queued_tokens{{{OF}}})", "{{model}} tokens queued"),
            (f"sum by (model) (onward_serve_running{{{OF}}})", "{{model}} running"),
        ),
        curve(
            "Refused and ended early, a second",
            "By code and by why; clients leave, but deadlines, drains and engines are ours.",
            "short",
            (rate("onward_serve_refusals_total", "model, code"), "{{model}} {{code}}"),
            (rate("onward_serve_aborts_total", "model, reason"), "{{model}} {{reason}}"),
        ),
        curve(
            "Adapters worn",
            "In places; made from the database and put out of a place, a second: many of both are too few places.",
            "short",
            (f"sum by (model) (onward_serve_adapters{{{OF}}})", "{{model}} in places"),
            (rate("onward_serve_adapters_made_total"), "{{model}} made"),
            (rate("onward_serve_adapters_evicted_total"), "{{model}} put out"),
        ),
    ]
