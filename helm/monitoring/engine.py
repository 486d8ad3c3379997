"""vLLM's own metrics beside ours. What its scheduler serves is its count; scoring goes around it and is ours."""

from grafana_foundation_sdk.builders import dashboard

from helm.monitoring.dashboard import make
from helm.monitoring.panels import Built, curve, number
from helm.monitoring.promql import OF, mean, rate, top, total, vllm


def board() -> dashboard.Dashboard:
    return make(
        "onward-engine",
        "Engine",
        "The engine of each worker: is it ready, what it scores for training (ours) and what its "
        "scheduler serves (vLLM's).",
        ("State", state()),
        ("Scoring (ours)", scoring()),
        ("Serving (vLLM's scheduler) and memory", serving()),
    )


def state() -> list[Built]:
    return [
        number(
            "Engines ready",
            "Workers whose engine is loaded and self-checked; fewer than deployed means that some still load.",
            "short",
            (f"sum(onward_engine_ready{{{OF}}})", "ready"),
            width=6,
            limits=[(1, "green")],
            base="red",
            alerts=["OnwardEngineNotReady"],
        ),
        number(
            "How long does an engine take to start?",
            "Load, self-check and canary; it bounds how fast new workers help, and must be under the "
            "startup probe's limit.",
            "s",
            (f"max(onward_engine_start_seconds{{{OF}}})", "start"),
            width=6,
            limits=[(300, "orange")],
        ),
        number(
            "Best rate of this machine",
            "FLOP/s of the best multiplication at the start; a worker far below its equals is on a "
            "throttled or shared machine.",
            "flops",
            (f"min(onward_peak_flops{{{OF}}})", "slowest worker"),
            width=6,
        ),
        number(
            "Engine failures in an hour",
            "Batches that the engine failed at; good is 0.",
            "short",
            (f"sum(increase(onward_engine_failures_total{{{OF}}}[1h]))", "failures"),
            width=6,
            limits=[(1, "red")],
            alerts=["OnwardEngineFailures"],
        ),
    ]


def scoring() -> list[Built]:
    return [
        curve(
            "Tokens a second: training beside serving",
            "Scored by jobs, and prompt and generated tokens of vLLM's scheduler; serving that grows "
            "leaves less for jobs.",
            "cps",
            (f"sum(rate(onward_scored_tokens_total{{{OF}}}[$__rate_interval]))", "scored (jobs)"),
            (f"sum(rate({vllm('prompt_tokens_total')}[$__rate_interval]))", "prompt (vLLM)"),
            (f"sum(rate({vllm('generation_tokens_total')}[$__rate_interval]))", "generated (vLLM)"),
        ),
        curve(
            "Time in the engine a call",
            "Mean time of one scoring call; more than before for the same tokens is a slower machine.",
            "s",
            (mean("onward_scoring_seconds"), "{{model}}"),
        ),
        curve(
            "FLOP/s reached and possible",
            "Multiplications of scored tokens, and the best measured rate; the gap is small batches, "
            "attention and idle time.",
            "flops",
            (
                f"sum by (model) ({rate('onward_scored_tokens_total', 'instance, model')} * on (instance, model)"
                f" max by (instance, model) (onward_token_flops{{{OF}}}))",
                "{{model}} reached",
            ),
            (total("onward_peak_flops"), "{{model}} possible"),
        ),
    ]


def serving() -> list[Built]:
    return [
        curve(
            "Requests in vLLM's scheduler",
            "Running and waiting requests of serving; training does not appear here, and 0 is normal "
            "where nobody chats.",
            "short",
            (f"sum({vllm('num_requests_running')})", "running"),
            (f"sum({vllm('num_requests_waiting')})", "waiting"),
        ),
        curve(
            "vLLM's KV cache in use",
            "Part of the serving cache that is taken; near 1, requests wait.",
            "percentunit",
            (f"max by (model_name) ({vllm('kv_cache_usage_perc')})", "{{model_name}}"),
            limits=[(0.9, "red")],
            top=1.0,
        ),
        curve(
            "Steps of vLLM's scheduler a second",
            "Iterations that it ran; 0 is normal where nobody chats.",
            "cps",
            (
                f"sum by (model_name) (rate({vllm('iteration_tokens_total_count')}[$__rate_interval]))",
                "{{model_name}}",
            ),
        ),
        curve(
            "A forward of training: fixed, and of 256 scored tokens",
            "The line that each worker measured at its start: what a forward takes whatever it scores, and with 256 "
            "scored tokens.",
            "s",
            (top("onward_training_fixed_seconds", "instance"), "{{instance}} fixed"),
            (
                f"max by (instance) (onward_training_fixed_seconds{{{OF}}}"
                f" + 256 * onward_training_token_seconds{{{OF}}})",
                "{{instance}} with 256 tokens",
            ),
            width=12,
        ),
        curve(
            "How well that line fits",
            "Largest relative difference of a forward measured at the start from the line; above 0.3 the machine was "
            "busy with something else, or its line has a knee.",
            "percentunit",
            (top("onward_training_line_error", "instance"), "{{instance}}"),
            width=12,
        ),
        curve(
            "Memory of the workers",
            "Resident memory of each worker process; steady is good, growth without end is a leak to report.",
            "bytes",
            ('process_resident_memory_bytes{job="onward-worker"}', "{{instance}}"),
            width=12,
        ),
        curve(
            "Kept prompts and their limit",
            "Keys and values that jobs of activation answer keep; at the limit with evictions, raise "
            "ONWARD_PROMPT_BYTES.",
            "bytes",
            (top("onward_prompt_bytes", "instance"), "{{instance}} kept"),
            (top("onward_prompt_limit_bytes", "instance"), "{{instance}} limit"),
            width=12,
            alerts=["OnwardPromptsEvicted"],
        ),
    ]
