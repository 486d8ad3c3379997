"""How fast: tokens, steps, batches, and where a step's time goes."""

from grafana_foundation_sdk.builders import dashboard

from helm.monitoring.dashboard import make
from helm.monitoring.panels import Built, curve
from helm.monitoring.promql import OF, mean, quantile, rate, top, total


def board() -> dashboard.Dashboard:
    return make(
        "onward-throughput",
        "Throughput",
        "How fast jobs advance, how full the engine's batches are, and where a step's time goes.",
        ("Rates", rates()),
        ("Batches", batches()),
        ("A step", step()),
    )


def rates() -> list[Built]:
    return [
        curve(
            "Scored tokens a second, by base model",
            "Tokens whose forward pass was paid for; while work waits, less than yesterday means a "
            "slower machine or batch.",
            "cps",
            (rate("onward_scored_tokens_total"), "{{model}}"),
        ),
        curve(
            "Steps a second, by tenant class",
            "Steps of all runs; 0 with work queued is an alarm.",
            "cps",
            (rate("onward_steps_total", "tenant_class"), "{{tenant_class}}"),
            stacked=True,
            alerts=["OnwardNoProgress"],
        ),
        curve(
            "Forwards a second",
            "Trials scored: one probe on one minibatch; it grows with tokens unless minibatches change.",
            "cps",
            (rate("onward_forwards_total"), "{{model}}"),
        ),
    ]


def batches() -> list[Built]:
    return [
        curve(
            "How many adapters are in a batch?",
            "Mean and 95 % of adapters scored together; more is better use of the engine, one means "
            "that jobs run alone.",
            "short",
            (mean("onward_adapters_per_batch"), "{{model}} mean"),
            (quantile(0.95, "onward_adapters_per_batch"), "{{model}} p95"),
        ),
        curve(
            "How full are the batches?",
            "Trials over the places of the waves they took; low while jobs queue says that ONWARD_COHORT is too small.",
            "percentunit",
            (mean("onward_batch_fill"), "{{model}}"),
            top=1.0,
        ),
        curve(
            "How many runs step together?",
            "Runs in the cohort and its limit; at the limit while jobs queue, add workers or raise ONWARD_COHORT.",
            "short",
            (total("onward_cohort_runs"), "{{model}} runs"),
            (total("onward_cohort_limit"), "{{model}} limit"),
        ),
    ]


def step() -> list[Built]:
    live = top("onward_jobs", "model, state", 'state=~"queued|running"')
    return [
        curve(
            "How long does a step take?",
            "A step of the cohort, median and 95 %; it bounds how soon a cancel or a drain is obeyed.",
            "s",
            (quantile(0.5, "onward_step_seconds"), "{{model}} p50"),
            (quantile(0.95, "onward_step_seconds"), "{{model}} p95"),
        ),
        curve(
            "What share of a step is not scoring?",
            "Time outside the engine; under 0.1 is good, more is noise generation, tokenising or the journal.",
            "percentunit",
            (f"1 - {rate('onward_scoring_seconds_sum')} / {rate('onward_step_seconds_sum')}", "{{model}}"),
            limits=[(0.2, "orange"), (0.4, "red")],
            top=1.0,
        ),
        curve(
            "How busy is each worker?",
            "Part of its time that a worker spends in steps; near 1 on all while jobs queue means add workers.",
            "percentunit",
            (rate("onward_step_seconds_sum", "instance"), "{{instance}}"),
            top=1.0,
        ),
        curve(
            "What fraction of the machine's peak is reached?",
            "Multiplications of scored tokens over the best rate measured at the start; 0.7 and more "
            "is good in long steps.",
            "percentunit",
            (f"{_flops()} / max by (instance, model) (onward_peak_flops{{{OF}}} > 0)", "{{instance}} {{model}}"),
            top=1.0,
            width=12,
        ),
        curve(
            "How long is a slice?",
            "Steps in a slice, the time under one lease; few steps mean that claiming costs more than it should.",
            "short",
            (f"{rate('onward_step_seconds_count')} / {rate('onward_slices_total')}", "{{model}} steps"),
            width=6,
        ),
        curve(
            "How many runs are kept in memory?",
            "Runs that continue without a replay; fewer than live jobs a worker means replays at each turn.",
            "short",
            (total("onward_resident_runs"), "{{model}} resident"),
            (f"sum by (model) ({live})", "{{model}} live jobs"),
            width=6,
        ),
    ]


def _flops() -> str:
    tokens = rate("onward_scored_tokens_total", "instance, model")
    return f"{tokens} * on (instance, model) max by (instance, model) (onward_token_flops{{{OF}}})"
