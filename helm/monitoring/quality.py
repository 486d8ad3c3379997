"""Are the losses right: the canary, losses that are not finite, what the guard did."""

from grafana_foundation_sdk.builders import dashboard

from helm.monitoring.dashboard import make
from helm.monitoring.panels import Built, curve, number
from helm.monitoring.promql import OF, rate, top


def board() -> dashboard.Dashboard:
    return make(
        "onward-quality",
        "Quality and noise",
        "Are the losses that jobs train on right: does company change them, and are they finite.",
        ("Now", now()),
        ("Over time", over_time()),
    )


def now() -> list[Built]:
    return [
        number(
            "Canary's error over its limit",
            "How much company changes a fixed trial's loss, over what was promised; above 1 stop that worker.",
            "percentunit",
            (f"max(onward_canary_nats{{{OF}}} / on (model, instance) onward_canary_limit_nats)", "of the limit"),
            width=6,
            limits=[(0.5, "orange"), (1, "red")],
            alerts=["OnwardNoiseAboveFloor"],
        ),
        number(
            "Canaries in an hour",
            "Canary trials scored among tenants' trials; 0 while jobs run means that nobody watches.",
            "short",
            (f"sum(increase(onward_canaries_total{{{OF}}}[1h]))", "canaries"),
            width=6,
            alerts=["OnwardCanarySilent"],
        ),
        number(
            "Losses not finite in an hour",
            "Infinite losses or not a number; a few are a bold learning rate, many are a broken engine.",
            "short",
            (f"sum(increase(onward_nonfinite_losses_total{{{OF}}}[1h]))", "losses"),
            width=6,
            limits=[(1, "orange"), (100, "red")],
            alerts=["OnwardNonfiniteLosses"],
        ),
        number(
            "Jobs that ended by the guard today",
            "Jobs failed with nonfinite_loss in 24 hours; their tenants keep the best step and need "
            "a smaller learning rate.",
            "short",
            (f'sum(increase(onward_jobs_ended_total{{{OF}, outcome="nonfinite_loss"}}[1d]))', "jobs"),
            width=6,
            limits=[(1, "orange")],
        ),
    ]


def over_time() -> list[Built]:
    return [
        curve(
            "Does a loss depend on its company?",
            "The canary's difference in nats a token, and its limit in this dtype; good is far below the limit.",
            "none",
            (top("onward_canary_nats", "instance, model"), "{{instance}} canary"),
            (top("onward_canary_limit_nats", "instance, model"), "{{instance}} limit"),
            width=12,
            alerts=["OnwardNoiseAboveFloor"],
        ),
        curve(
            "What part of the losses is not finite?",
            "Losses that are infinite or not a number over all; beyond 1 % is an alert.",
            "percentunit",
            (f"{rate('onward_nonfinite_losses_total')} / {rate('onward_forwards_total')}", "{{model}}"),
            width=12,
            limits=[(0.01, "red")],
            alerts=["OnwardNonfiniteLosses"],
        ),
        curve(
            "Canaries a minute, by worker",
            "About one a minute while jobs run; a worker that has none is not watched.",
            "short",
            (f"60 * {rate('onward_canaries_total', 'instance')}", "{{instance}}"),
            width=12,
            alerts=["OnwardCanarySilent"],
        ),
        curve(
            "How do jobs end? (an hour)",
            "Ends by outcome; good is that nearly all succeed.",
            "short",
            (f"sum by (outcome) (increase(onward_jobs_ended_total{{{OF}}}[1h]))", "{{outcome}}"),
            width=12,
            stacked=True,
            alerts=["OnwardJobsRefused"],
        ),
    ]
