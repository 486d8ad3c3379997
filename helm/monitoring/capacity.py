"""How near the limit, and what it costs: backlog, places, prompts, memory, disk; money by scored token and adapter."""

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import VariableOption

from helm.monitoring.dashboard import make
from helm.monitoring.panels import Built, curve, number
from helm.monitoring.promql import OF, rate, top, total

PRICE = "0.10"
WORKERS = f"sum(onward_engine_ready{{{OF}}})"
SPENT = f"sum_over_time({WORKERS}[1h:15s]) * 15"  # worker-seconds of the last hour


def board() -> dashboard.Dashboard:
    return make(
        "onward-capacity",
        "Capacity and cost",
        "How near the limits, when the queue will be empty, and what a token, a job and an adapter cost.",
        ("The queue", queue()),
        ("Limits", limits()),
        ("Cost", cost()),
        extra=[_price()],
    )


def queue() -> list[Built]:
    return [
        curve(
            "How many tokens are still to be scored?",
            "What live jobs still cost; a slope that stays up needs more workers.",
            "short",
            (top("onward_backlog_tokens"), "{{model}}"),
            alerts=["OnwardBacklogGrows"],
        ),
        curve(
            "In how many hours is the queue empty?",
            "Backlog over the last hour's rate; under a day is good.",
            "h",
            (f"model:onward_backlog_seconds:ratio_rate1h{{{OF}}} / 3600", "{{model}}"),
            limits=[(12, "orange"), (24, "red")],
            alerts=["OnwardBacklogGrows"],
        ),
        curve(
            "How many places for runs are taken?",
            "Runs stepping now over all workers' places; at 1 while jobs queue, they take turns.",
            "percentunit",
            (f"{total('onward_cohort_runs')} / {total('onward_cohort_limit')}", "{{model}}"),
            limits=[(0.95, "orange")],
            top=1.0,
        ),
    ]


def limits() -> list[Built]:
    found, asked = (rate("onward_prompts_total", where=f'outcome=~"{x}"') for x in ("found", "found|computed"))
    return [
        curve(
            "How often is a prompt found?",
            "Prompts that need not be computed again, for jobs of activation answer; near 1 is good, "
            "see the limit beside it.",
            "percentunit",
            (
                f"{found} / {asked}",
                "{{model}}",
            ),
            top=1.0,
            alerts=["OnwardPromptsEvicted"],
        ),
        curve(
            "How full is the place for prompts?",
            "Bytes kept over ONWARD_PROMPT_BYTES, the fullest worker; full with prompts that are not "
            "found means raise it.",
            "percentunit",
            (
                f"max by (model) (onward_prompt_bytes{{{OF}}} / on (model, instance) onward_prompt_limit_bytes)",
                "{{model}}",
            ),
            limits=[(0.95, "orange")],
            top=1.0,
            alerts=["OnwardPromptsEvicted"],
        ),
        curve(
            "How much of the disk is free?",
            "Of ONWARD_HOME, by worker; under 0.15 is an alert, snapshots and adapters there are a cache.",
            "percentunit",
            ("onward_home_free_bytes / onward_home_bytes", "{{instance}}"),
            limits=[(0.03, "orange"), (0.15, "green")],
            base="red",
            top=1.0,
            alerts=["OnwardDiskFills", "OnwardDiskFull"],
        ),
        curve(
            "Memory of all processes",
            "Resident memory; compare with the limits of the containers, growth without end is a leak.",
            "bytes",
            ('process_resident_memory_bytes{job=~"onward-api|onward-worker"}', "{{job}} {{instance}}"),
        ),
        curve(
            "Cores that the workers use",
            "Processor seconds a second; on a CPU, near the threads of the worker is good while jobs run.",
            "short",
            ('rate(process_cpu_seconds_total{job="onward-worker"}[$__rate_interval])', "{{instance}}"),
        ),
        curve(
            "Workers by state",
            "What is paid for: starting, ready and draining; ready ones without queued jobs can be fewer.",
            "short",
            (f"sum by (state) ({top('onward_workers', 'model, state')})", "{{state}}"),
            stacked=True,
        ),
    ]


def cost() -> list[Built]:
    tokens = f"sum(increase(onward_scored_tokens_total{{{OF}}}[1h]))"
    adapters = f"sum(increase(onward_published_adapters_total{{{OF}}}[1h]))"
    return [
        number(
            "Cost of a million scored tokens",
            "Worker-hours of the last hour times their price, over tokens; it falls as batches fill.",
            "currencyUSD",
            (f"$cost * {SPENT} / 3600 / ({tokens} > 0) * 1e6", "a million"),
            width=6,
        ),
        number(
            "Cost of an adapter",
            "Price of the last hour's worker-hours over adapters published in it.",
            "currencyUSD",
            (f"$cost * {SPENT} / 3600 / ({adapters} > 0)", "an adapter"),
            width=6,
        ),
        number(
            "Cost of the workers, a day",
            "Workers with an engine now, times 24 hours, times their price.",
            "currencyUSD",
            (f"$cost * {WORKERS} * 24", "a day"),
            width=6,
        ),
        number(
            "What part of that was idle?",
            "Part of the last hour in which ready workers took no step; much and no queue means fewer workers will do.",
            "percentunit",
            (f"clamp_min(1 - sum(increase(onward_step_seconds_sum{{{OF}}}[1h])) / ({SPENT}), 0)", "idle"),
            width=6,
            limits=[(0.7, "orange")],
        ),
        curve(
            "Cost of the queued work",
            "What live jobs will still cost at the last hour's rate and this price.",
            "currencyUSD",
            (
                f"$cost * sum by (model) (onward_engine_ready{{{OF}}})"
                f" * on (model) model:onward_backlog_seconds:ratio_rate1h / 3600",
                "{{model}}",
            ),
            width=12,
        ),
        curve(
            "Cost, by tenant class, an hour",
            "The workers' price split by scored tokens; a class's bill.",
            "currencyUSD",
            (
                f"$cost * scalar({WORKERS}) *"
                f" (sum by (tenant_class) (model_class:onward_scored_tokens:rate5m{{{OF}}})"
                f" / on () group_left () (sum(model_class:onward_scored_tokens:rate5m{{{OF}}}) > 0))",
                "{{tenant_class}}",
            ),
            width=12,
            stacked=True,
        ),
    ]


def _price() -> dashboard.TextBoxVariable:
    made = dashboard.TextBoxVariable("cost").label("Cost of a worker-hour").default_value(PRICE)
    return made.current(VariableOption(text=PRICE, value=PRICE)).description("In dollars, or any currency of yours.")
