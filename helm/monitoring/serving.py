"""Chats: what a client feels, what waits, who is refused, adapters, and what serving leaves to training."""

from grafana_foundation_sdk.builders import dashboard

from helm.monitoring.dashboard import make
from helm.monitoring.panels import Built, curve
from helm.monitoring.promql import OF, quantile, rate, total

FIRST, NEXT, WAIT = (f"onward_serve_{what}_seconds" for what in ("first_token", "inter_token", "wait"))


def board() -> dashboard.Dashboard:
    return make(
        "onward-serving",
        "Serving",
        "How soon chats are answered, what waits and is refused, which adapters are worn, what training is left.",
        ("What a client feels", felt()),
        ("Load", load()),
        ("Refused and cut", refused()),
        ("Adapters", adapters()),
        ("Beside training", training()),
    )


def felt() -> list[Built]:
    return [
        curve(
            "How long until the first token?",
            "Of streamed requests, from their arrival at the worker; good is what an idle worker takes.",
            "s",
            *_p50_p99(FIRST),
            limits=[(10, "red")],
            alerts=["OnwardFirstTokenSlow"],
        ),
        curve(
            "How long between two tokens?",
            "Of streamed requests; it grows with the requests that run together and with long prompts read in between.",
            "s",
            *_p50_p99(NEXT),
            limits=[(3, "red")],
            alerts=["OnwardTokensSlow"],
        ),
        curve(
            "How long does a request wait to start?",
            "From its arrival to the engine's scheduler; more than a moment means that places or sequences are taken.",
            "s",
            *_p50_p99(WAIT),
            alerts=["OnwardServeQueueFull"],
        ),
    ]


def load() -> list[Built]:
    cached = rate("onward_serve_prompt_tokens_total", where='outcome="cached"')
    limit = (
        f"max by (model) (onward_serve_queued_tokens{{{OF}}} / on (model, instance) onward_serve_queue_limit_tokens)"
    )
    return [
        curve(
            "How full is the queue?",
            "Tokens that wait over ONWARD_SERVE_QUEUE_TOKENS, the fullest worker; at 1 requests are refused.",
            "percentunit",
            (limit, "{{model}}"),
            limits=[(0.9, "red")],
            top=1.0,
            alerts=["OnwardServeQueueFull", "OnwardChatsOverloaded"],
        ),
        curve(
            "Tokens that wait",
            "Of requests that have not started, their expected answers counted; good is near 0.",
            "short",
            (total("onward_serve_queued_tokens"), "{{model}}"),
            alerts=["OnwardServeQueueFull"],
        ),
        curve(
            "How many requests run?",
            "Requests in the engine; they share its steps.",
            "short",
            (total("onward_serve_running"), "{{model}}"),
        ),
        curve(
            "Served tokens a second",
            "Of prompts, computed or found in the cache, and generated; cached ones cost next to nothing.",
            "cps",
            (rate("onward_serve_prompt_tokens_total", "model, outcome"), "{{model}} prompt, {{outcome}}"),
            (rate("onward_serve_tokens_total"), "{{model}} generated"),
            width=12,
        ),
        curve(
            "What part of prompts is in the cache?",
            "Only a tenant's own requests share; near 0 with long equal beginnings means raise "
            "ONWARD_SERVE_CACHE_TOKENS.",
            "percentunit",
            (
                f"{cached} / {rate('onward_serve_prompt_tokens_total')}",
                "{{model}}",
            ),
            top=1.0,
            width=12,
        ),
    ]


def refused() -> list[Built]:
    return [
        curve(
            "What comes of chats?",
            "As the API saw it; good is answered, refused is the client's fault, everything else is ours.",
            "cps",
            (rate("onward_chats_total", "outcome"), "{{outcome}}"),
            stacked=True,
            alerts=["OnwardChatsUnserved", "OnwardChatsOverloaded", "OnwardChatsCut"],
        ),
        curve(
            "What do workers refuse, by code?",
            "What the API took elsewhere is counted too; overloaded and draining are the worker's state, "
            "most others the request's fault.",
            "cps",
            (rate("onward_serve_refusals_total", "code"), "{{code}}"),
            stacked=True,
            alerts=["OnwardChatsOverloaded"],
        ),
        curve(
            "Which requests end before their end?",
            "By reason; client is somebody who left, engine a worker that failed.",
            "cps",
            (rate("onward_serve_aborts_total", "reason"), "{{reason}}"),
            stacked=True,
            alerts=["OnwardChatsCut"],
        ),
    ]


def adapters() -> list[Built]:
    evicted, began = rate("onward_serve_adapters_evicted_total"), rate(WAIT + "_count")
    return [
        curve(
            "How many adapters have a place?",
            "Adapters in the engine and its places for them; all taken is no fault until some push others out.",
            "short",
            (total("onward_serve_adapters"), "{{model}} worn or kept"),
            (total("onward_serve_places"), "{{model}} places"),
            alerts=["OnwardAdaptersThrash"],
        ),
        curve(
            "Adapters made and pushed out, a second",
            "Made: read or replayed, not found in memory; pushed out of a place by another.",
            "cps",
            (rate("onward_serve_adapters_made_total"), "{{model}} made"),
            (evicted, "{{model}} pushed out"),
            alerts=["OnwardAdaptersThrash"],
        ),
        curve(
            "How many requests push an adapter out?",
            "Over the requests that start; near 1 means that ONWARD_SERVE_SLOTS is too small for those in demand.",
            "percentunit",
            (f"{evicted} / {began}", "{{model}}"),
            limits=[(0.5, "orange")],
            top=1.0,
            alerts=["OnwardAdaptersThrash"],
        ),
    ]


def training() -> list[Built]:
    return [
        curve(
            "Who has the engine?",
            "Seconds of the engine a second, by use; what is left of 1 a worker is idle.",
            "percentunit",
            (rate("onward_engine_seconds_total", "model, use"), "{{model}} {{use}}"),
            stacked=True,
            alerts=["OnwardTrainingStarved"],
        ),
        curve(
            "What share has training of the time that it wants?",
            "Its seconds over those and the ones it stood for serving, over 30 minutes; 1 where nobody chats.",
            "percentunit",
            (f"model:onward_training_share:ratio_rate30m{{{OF}}}", "{{model}}"),
            limits=[(0.05, "green")],
            base="red",
            top=1.0,
            alerts=["OnwardTrainingStarved"],
        ),
        curve(
            "How long does training stand?",
            "Seconds a second that a job had work for the engine and serving had it.",
            "percentunit",
            (rate("onward_paused_seconds_total"), "{{model}}"),
            alerts=["OnwardTrainingStarved"],
        ),
        curve(
            "Pauses a second",
            "Times that a forward gave way in its middle; 0 while nobody chats.",
            "cps",
            (rate("onward_pauses_total"), "{{model}}"),
            width=12,
        ),
        curve(
            "How long is a pause?",
            "Seconds that training stood over its pauses; a step of serving at least.",
            "s",
            (f"{rate('onward_paused_seconds_total')} / {rate('onward_pauses_total')}", "{{model}} mean"),
            width=12,
        ),
    ]


def _p50_p99(histogram: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (
        (quantile(0.5, histogram), "{{model}} p50"),
        (quantile(0.99, histogram), "{{model}} p99"),
    )
