"""One look: how much is trained, for whom, how fast, how near the limit, and what is wrong."""

from grafana_foundation_sdk.builders import dashboard

from helm.monitoring.dashboard import make
from helm.monitoring.panels import Built, curve, number, states
from helm.monitoring.promql import OF, jobs, rate, top, workers

# An alert that a whole kind of process is absent may say of no installation.
FIRING = 'ALERTS{namespace=~"$namespace|", release=~"$release|", alertname=~"Onward.*", alertstate="firing"}'


def board() -> dashboard.Dashboard:
    return make(
        "onward-overview",
        "Overview",
        "How much is being trained, for whom, how fast, how near the limit, and what is wrong.",
        ("Now", now()),
        ("For whom and how fast", speed()),
        ("What is wrong", wrong()),
    )


def now() -> list[Built]:
    return [
        number(
            "Scored tokens a second",
            "Tokens whose forward pass was paid for; good is what the engine gave before, 0 with "
            "jobs running is an alarm.",
            "cps",
            (f"sum(rate(onward_scored_tokens_total{{{OF}}}[$__rate_interval]))", "tokens/s"),
            alerts=["OnwardNoProgress"],
        ),
        number(
            "Jobs running",
            "Jobs that a worker holds now; more than the cohort's places take turns.",
            "short",
            (f"sum({jobs('running')})", "running"),
        ),
        number(
            "Jobs queued",
            "Jobs that wait for a turn; good is few, add workers where it keeps growing.",
            "short",
            (f"sum({jobs('queued')})", "queued"),
            limits=[(50, "orange"), (500, "red")],
            alerts=["OnwardQueueWithoutWorker"],
        ),
        number(
            "How busy are the workers?",
            "Part of their time that ready workers spend in steps; near 1 all is in use, and more "
            "work needs more workers.",
            "percentunit",
            (
                f"sum(rate(onward_step_seconds_sum{{{OF}}}[$__rate_interval])) / sum(onward_engine_ready{{{OF}}} > 0)",
                "busy",
            ),
            limits=[(0.9, "orange")],
        ),
        number(
            "When is the queue empty?",
            "Time that all live jobs take at the last hour's rate; good is under a day, else add workers.",
            "s",
            (f"max(model:onward_backlog_seconds:ratio_rate1h{{{OF}}})", "to do"),
            limits=[(43200, "orange"), (86400, "red")],
            alerts=["OnwardBacklogGrows"],
        ),
        number(
            "Alerts firing",
            "Onward's alerts that fire now; good is 0, open the runbook of each that is listed below.",
            "short",
            (f"count({FIRING}) or vector(0)", "firing"),
            limits=[(1, "red")],
        ),
    ]


def speed() -> list[Built]:
    return [
        curve(
            "Scored tokens a second, by tenant class",
            "Who the engine works for; classes that have work should share it by weight, else look "
            "at tenants and fairness.",
            "cps",
            (rate("onward_scored_tokens_total", "tenant_class"), "{{tenant_class}}"),
            stacked=True,
        ),
        curve(
            "Live jobs by state",
            "Jobs that have not ended; queued work that grows while workers are busy needs more workers.",
            "short",
            (f"sum by (state) ({top('onward_jobs', 'model, state')})", "{{state}}"),
            stacked=True,
            alerts=["OnwardJobsWaitTooLong"],
        ),
        curve(
            "How much of the machines' peak is used?",
            "Multiplications of scored tokens over the best rate measured at the start; 0.7 and more "
            "is good while work waits.",
            "percentunit",
            (f"model:onward_peak:ratio_rate5m{{{OF}}}", "{{model}}"),
            top=1.0,
        ),
    ]


def wrong() -> list[Built]:
    return [
        states(
            "Is everything there?",
            "Good is yes all along; a no names what to look at first, and its runbook says what to do.",
            ("max(onward_database_up)", "PostgreSQL answers"),
            ("max(onward_broker_up)", "Valkey answers"),
            ("min(onward_schema_current)", "schema is current"),
            (f"{workers('ready')} > bool 0", "{{model}} has a ready worker"),
            (f"{top('onward_stale_workers')} == bool 0", "{{model}}: no worker is silent"),
            ('min by (job) (up{job=~"onward-api|onward-worker"})', "{{job}} is scraped"),
            alerts=["OnwardDatabaseDown", "OnwardBrokerDown", "OnwardQueueWithoutWorker", "OnwardTargetMissing"],
        ),
        curve(
            "Which alerts fire?",
            "Onward's alerts that fire; good is none, for anything else open docs/runbooks under its name.",
            "short",
            (
                f"count by (alertname, severity) ({FIRING}) or label_replace(vector(0) unless on () {FIRING},"
                ' "alertname", "none", "", "")',
                "{{alertname}} {{severity}}",
            ),
            width=6,
        ),
        curve(
            "How large is the canary's error over its limit?",
            "Difference of a fixed trial's loss among tenants' trials from its loss alone, over the "
            "limit; above 1 losses are wrong.",
            "percentunit",
            (
                f"max by (model) (onward_canary_nats{{{OF}}} / on (model, instance) onward_canary_limit_nats)",
                "{{model}}",
            ),
            width=6,
            limits=[(1, "red")],
            alerts=["OnwardNoiseAboveFloor"],
        ),
        number(
            "Oldest queued job",
            "Age of the oldest queued job; good is minutes, beyond an hour somebody waits.",
            "s",
            (f"max({top('onward_oldest_queued_age_seconds')})", "age"),
            limits=[(1800, "orange"), (3600, "red")],
            alerts=["OnwardJobsWaitTooLong"],
        ),
        number(
            "Tenants with work",
            "Tenants that have queued or running jobs; for whom the engine works now.",
            "short",
            (f"sum({top('onward_active_tenants')})", "tenants"),
        ),
        number(
            "How even is the share?",
            "Jain's index of the tenants' recent tokens over their weights; 1 is even, under 0.6 one "
            "tenant has nearly all.",
            "none",
            (f"min({top('onward_fairness_jain')})", "Jain"),
            limits=[(0.6, "orange"), (0.8, "green")],
            base="red",
            alerts=["OnwardUnfair"],
        ),
        number(
            "API errors",
            "Part of all requests answered with 5xx; good is under 0.1 %.",
            "percentunit",
            ("max(job:onward_http_errors:ratio_rate5m)", "errors"),
            limits=[(0.001, "orange"), (0.0144, "red")],
            alerts=["OnwardApiErrors"],
        ),
        number(
            "Adapters published today",
            "Adapters that tenants got in 24 hours; the product of all the rest.",
            "short",
            (f"sum(increase(onward_published_adapters_total{{{OF}}}[1d]))", "adapters"),
        ),
        number(
            "Workers ready",
            "Workers that beat and have their engine; with 0 and work queued nothing moves.",
            "short",
            (f"sum({workers('ready')})", "ready"),
            limits=[(1, "green")],
            base="red",
            alerts=["OnwardQueueWithoutWorker", "OnwardEngineNotReady"],
        ),
    ]
