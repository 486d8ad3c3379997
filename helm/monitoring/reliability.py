"""What breaks and what it costs: dependencies, leases, the journal, replays, the ends of jobs."""

from grafana_foundation_sdk.builders import dashboard

from helm.monitoring.dashboard import make
from helm.monitoring.panels import Built, bars, curve, states
from helm.monitoring.promql import OF, rate, top


def board() -> dashboard.Dashboard:
    return make(
        "onward-reliability",
        "Reliability",
        "Does everything hold: database, broker, workers, leases, the journal; and what failures have cost.",
        ("What must be there", there()),
        ("Leases and the journal", leases()),
        ("Ends of jobs and clocks", ends()),
    )


def there() -> list[Built]:
    return [
        states(
            "Do PostgreSQL and Valkey answer, at the right schema?",
            "As each API process sees them; good is yes, and what was answered with 2xx is safe in any case.",
            ("min by (instance) (onward_database_up)", "{{instance}} PostgreSQL"),
            ("min by (instance) (onward_broker_up)", "{{instance}} Valkey"),
            ("min by (instance) (onward_schema_current)", "{{instance}} schema"),
            alerts=["OnwardDatabaseDown", "OnwardBrokerDown", "OnwardSchemaBehind"],
        ),
        curve(
            "Workers by state",
            "Workers with a fresh heartbeat, and those that fell silent; silent ones should be none.",
            "short",
            (f"sum by (state) ({top('onward_workers', 'model, state')})", "{{state}}"),
            (f"sum({top('onward_stale_workers')})", "silent"),
            width=12,
            alerts=["OnwardWorkerStale", "OnwardQueueWithoutWorker"],
        ),
        curve(
            "Workers out of service, by reason",
            "Workers whose disk refuses, or whose engine is not to be trusted; good is none.",
            "short",
            (f"sum by (reason) (onward_worker_out_of_service{{{OF}}})", "{{reason}}"),
            limits=[(1, "red")],
            alerts=["OnwardWorkerOutOfService"],
        ),
    ]


def leases() -> list[Built]:
    return [
        curve(
            "Leases that expired and writes that were refused, an hour",
            "Both are harmless to data and cost work done twice; a few after a crash are right, a "
            "steady stream is not.",
            "short",
            (f"sum(increase(onward_lease_expiries_total{{{OF}}}[1h]))", "leases expired"),
            (f"sum(increase(onward_fenced_writes_total{{{OF}}}[1h]))", "writes refused"),
            alerts=["OnwardLeaseExpiries", "OnwardFencedWrites"],
        ),
        curve(
            "How old is the oldest step that is not committed?",
            "Good is about a second; beyond ten a lease is near its end, look at PostgreSQL.",
            "s",
            (top("onward_journal_lag_seconds", "instance"), "{{instance}}"),
            limits=[(5, "orange"), (10, "red")],
            alerts=["OnwardJournalLag"],
        ),
        curve(
            "Doorbells a second",
            "Rung and lost, by who rang; lost ones delay a job until the sweep rings again.",
            "cps",
            (f"sum by (job, outcome) (rate(onward_doorbells_total{{{OF}}}[$__rate_interval]))", "{{job}} {{outcome}}"),
            alerts=["OnwardDoorbellsLost"],
        ),
        curve(
            "What does rebuilding runs cost?",
            "Part of a worker's time spent in replays; more than 0.05 means too few residents or workers that die.",
            "percentunit",
            (rate("onward_replay_seconds_sum", "instance"), "{{instance}}"),
            limits=[(0.05, "orange"), (0.2, "red")],
        ),
        curve(
            "Replays an hour",
            "Runs rebuilt from their journal: after a crash, a drain or a place lost in memory.",
            "short",
            (f"sum by (model) (increase(onward_replay_seconds_count{{{OF}}}[1h]))", "{{model}}"),
        ),
        curve(
            "Slices and engine batches that failed, an hour",
            "Slices that the database broke off, batches that the engine failed at; good is 0.",
            "short",
            (f"sum(increase(onward_slice_errors_total{{{OF}}}[1h]))", "slices"),
            (f"sum(increase(onward_engine_failures_total{{{OF}}}[1h]))", "engine"),
            limits=[(1, "orange")],
            alerts=["OnwardSliceErrors", "OnwardEngineFailures"],
        ),
    ]


def ends() -> list[Built]:
    return [
        bars(
            "How did jobs end today?",
            "Runs that came to an end in 24 hours; engine_refused and unreadable_rows should be 0.",
            "short",
            (f"sum by (outcome) (increase(onward_jobs_ended_total{{{OF}}}[1d]))", "{{outcome}}"),
            alerts=["OnwardJobsRefused"],
        ),
        curve(
            "How far apart are the clocks?",
            "PostgreSQL's clock less the API's; under a second is good.",
            "s",
            ("abs(onward_clock_skew_seconds)", "{{instance}}"),
            limits=[(2, "red")],
            alerts=["OnwardClockSkew"],
        ),
        curve(
            "For how long has each process run?",
            "Time since its start; a saw-tooth is a process that dies again and again.",
            "s",
            ('time() - process_start_time_seconds{job=~"onward-api|onward-worker"}', "{{job}} {{instance}}"),
            alerts=["OnwardTargetMissing"],
        ),
    ]
