"""For whom, and is it fair: classes, waits, shares, quotas. No tenant is named: a tenant's curves come from the API."""

from grafana_foundation_sdk.builders import dashboard

from helm.monitoring.dashboard import make
from helm.monitoring.panels import Built, bars, curve, number
from helm.monitoring.promql import OF, jobs, quantile, rate, top

FAIR = [(0.6, "orange"), (0.8, "green")]


def board() -> dashboard.Dashboard:
    return make(
        "onward-tenants",
        "Tenants and fairness",
        "Who gets the engine, who waits, and whether the shares follow the weights. Tenants are counted, never named.",
        ("Now", now()),
        ("Shares", shares()),
        ("Waiting", waiting()),
    )


def now() -> list[Built]:
    return [
        number(
            "Tenants with work",
            "Tenants with queued or running jobs.",
            "short",
            (f"sum({top('onward_active_tenants')})", "tenants"),
            width=6,
        ),
        number(
            "How even is the share?",
            "Jain's index of recent tokens over weights; 1 is even, 1/n when one of n tenants has everything.",
            "none",
            (f"min({top('onward_fairness_jain')})", "Jain"),
            width=6,
            limits=FAIR,
            base="red",
            alerts=["OnwardUnfair"],
        ),
        number(
            "Tenants near their quota",
            "Tenants who have spent or promised nine tenths of their tokens; tell them, or raise the quota.",
            "short",
            ("max(onward_tenants_near_quota)", "tenants"),
            width=6,
            limits=[(1, "orange")],
            alerts=["OnwardTenantsNearQuota"],
        ),
        number(
            "Oldest queued job",
            "Age of the oldest queued job; good is minutes.",
            "s",
            (f"max({top('onward_oldest_queued_age_seconds')})", "age"),
            width=6,
            limits=[(1800, "orange"), (3600, "red")],
            alerts=["OnwardJobsWaitTooLong"],
        ),
    ]


def shares() -> list[Built]:
    tokens = rate("onward_scored_tokens_total", "tenant_class")
    return [
        curve(
            "Scored tokens a second, by tenant class",
            "Who the engine works for now; a class with queued work and no tokens is starved.",
            "cps",
            (tokens, "{{tenant_class}}"),
            stacked=True,
            width=12,
        ),
        curve(
            "What share does each class get?",
            "Part of all scored tokens; compare it with the sum of the class's weights.",
            "percentunit",
            (f"{tokens} / on () group_left () (sum({tokens}) > 0)", "{{tenant_class}}"),
            stacked=True,
            top=1.0,
            width=12,
        ),
        curve(
            "Jain's index, by base model",
            "1 is even; under 0.6 for half an hour while jobs queue is an alert.",
            "none",
            (top("onward_fairness_jain"), "{{model}}"),
            limits=FAIR,
            base="red",
            top=1.0,
            alerts=["OnwardUnfair"],
        ),
        curve(
            "Tenants with work, by base model",
            "Tenants with queued or running jobs; more tenants make fuller batches.",
            "short",
            (top("onward_active_tenants"), "{{model}}"),
        ),
        bars(
            "Adapters published today, by class",
            "What each class got in 24 hours.",
            "short",
            (f"sum by (tenant_class) (increase(onward_published_adapters_total{{{OF}}}[1d]))", "{{tenant_class}}"),
        ),
    ]


def waiting() -> list[Built]:
    return [
        curve(
            "How long do jobs wait for their first turn (95 % of the last 30 minutes)?",
            "From creation to the first claim, by class; good is seconds, minutes where all places are taken.",
            "s",
            (f"max by (tenant_class) (model_class:onward_queue_wait_seconds:p95_30m{{{OF}}})", "{{tenant_class}}"),
            limits=[(300, "orange"), (1800, "red")],
            alerts=["OnwardJobsWaitTooLong"],
        ),
        curve(
            "How many jobs wait?",
            "Queued jobs by base model; growing while workers are busy means add workers.",
            "short",
            (jobs("queued"), "{{model}}"),
            alerts=["OnwardQueueWithoutWorker"],
        ),
        curve(
            "How old is the oldest queued job?",
            "Age since its creation, by base model; good is minutes, beyond an hour it is an alert.",
            "s",
            (top("onward_oldest_queued_age_seconds"), "{{model}}"),
            limits=[(3600, "red")],
            alerts=["OnwardJobsWaitTooLong"],
        ),
        curve(
            "Are the waits foretold right?",
            "The wait told when a job was made over the wait it had; 1 is right, under 1 promised too much.",
            "none",
            (quantile(0.5, "onward_wait_estimate_ratio"), "{{model}} median"),
            (quantile(0.05, "onward_wait_estimate_ratio"), "{{model}} lowest 5 %"),
        ),
    ]
