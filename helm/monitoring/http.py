"""The API: requests, errors, latencies by route, and the process behind them."""

from grafana_foundation_sdk.builders import dashboard

from helm.monitoring.dashboard import make
from helm.monitoring.panels import Built, bars, curve, number

SECONDS = "onward_http_request_seconds_bucket"
API = 'job="onward-api"'
CHATS = 'route=~"/v1/(chat/completions|completions)|/console/chat"'


def board() -> dashboard.Dashboard:
    return make(
        "onward-api",
        "API",
        "Requests, errors and latencies of the API, by route.",
        ("All routes", whole()),
        ("By route", routes()),
        ("Chats", chats()),
        ("The process and its database", process()),
    )


def whole() -> list[Built]:
    return [
        number(
            "Requests a second",
            "All answers; clients that watch jobs make most of them.",
            "reqps",
            ("sum(rate(onward_http_requests_total[$__rate_interval]))", "requests"),
        ),
        number(
            "Errors (5xx)",
            "Part of requests that failed by our fault in 5 minutes; good is under 0.1 %.",
            "percentunit",
            ("max(job:onward_http_errors:ratio_rate5m)", "5xx"),
            limits=[(0.001, "orange"), (0.0144, "red")],
            alerts=["OnwardApiErrors"],
        ),
        number(
            "Errors (5xx), six hours",
            "The same over six hours; beyond 0.1 % the month's allowance is being spent.",
            "percentunit",
            ("max(job:onward_http_errors:ratio_rate6h)", "5xx"),
            limits=[(0.001, "orange"), (0.006, "red")],
            alerts=["OnwardApiErrorsSlowBurn"],
        ),
        number(
            "Refused (4xx)",
            "Part of requests refused as the client's fault; a jump after a release is a change that "
            "clients do not know.",
            "percentunit",
            (f"({_of('4..')}) / sum(rate(onward_http_requests_total[$__rate_interval]))", "4xx"),
        ),
        number(
            "95 % of requests are faster than",
            "Files and chats not counted; under a quarter of a second is good.",
            "s",
            ("max(job:onward_http_request_seconds:p95_5m)", "p95"),
            limits=[(0.25, "orange"), (1, "red")],
            alerts=["OnwardApiSlow"],
        ),
        number(
            "API processes",
            "Processes that Prometheus reaches; fewer than deployed means that some are down.",
            "short",
            (f"sum(up{{{API}}})", "up"),
            limits=[(1, "green")],
            base="red",
            alerts=["OnwardTargetMissing"],
        ),
    ]


def routes() -> list[Built]:
    return [
        curve(
            "Requests a second, by route",
            "What clients do; a route that jumps is one client in a loop.",
            "reqps",
            ("sum by (method, route) (rate(onward_http_requests_total[$__rate_interval]))", "{{method}} {{route}}"),
            width=12,
        ),
        curve(
            "Answers a second, by status",
            "2xx is good, 4xx the client's fault, 5xx ours; 503 means that PostgreSQL does not answer.",
            "reqps",
            ("sum by (status) (rate(onward_http_requests_total[$__rate_interval]))", "{{status}}"),
            width=12,
            stacked=True,
            alerts=["OnwardApiErrors"],
        ),
        *(
            curve(
                f"{percent} % of requests are faster than, by route",
                "Good is under a second but for files and chats, whose time is the client's; a slow route "
                "names the query to look at.",
                "s",
                (
                    f"histogram_quantile({q}, sum by (le, method, route) (rate({SECONDS}[$__rate_interval])))",
                    "{{method}} {{route}}",
                ),
                alerts=["OnwardApiSlow"],
            )
            for percent, q in ((50, 0.5), (95, 0.95), (99, 0.99))
        ),
        bars(
            "Which routes fail?",
            "Part of a route's requests answered with 5xx in an hour; good is 0 everywhere.",
            "percentunit",
            (
                '(sum by (route) (rate(onward_http_requests_total{status=~"5.."}[1h]))'
                " or 0 * sum by (route) (rate(onward_http_requests_total[1h])))"
                " / (sum by (route) (rate(onward_http_requests_total[1h])) > 0)",
                "{{route}}",
            ),
            limits=[(0.001, "orange"), (0.0144, "red")],
            top=1.0,
            width=24,
            alerts=["OnwardApiErrors"],
        ),
    ]


def chats() -> list[Built]:
    of = "sum by (route, status) (rate(onward_http_requests_total{{{}}}[$__rate_interval]))"
    return [
        curve(
            "Chats a second, by route and status",
            "All that were asked, refused ones too; a stream that failed in its middle is a 200 here.",
            "reqps",
            (of.format(CHATS), "{{route}} {{status}}"),
            stacked=True,
        ),
        curve(
            "Sent away for now (429, 503)",
            "429 is the tenant's limit or quota; 503 is no worker, too much asked, or the database.",
            "reqps",
            (
                f'sum(rate(onward_http_requests_total{{{CHATS}, status=~"429|503"}}[$__rate_interval])) or vector(0)',
                "429 and 503",
            ),
            alerts=["OnwardChatsOverloaded", "OnwardChatsUnserved"],
        ),
        curve(
            "Chats asked again of the next worker, a second",
            "One failed or refused before its first byte, which the client did not notice; more than now and then "
            "is a worker that is not well.",
            "cps",
            ("sum(rate(onward_chat_retries_total[$__rate_interval]))", "asked again"),
        ),
        curve(
            "How many chats' tokens are not written yet?",
            "They wait in each API process for the database and are lost with it.",
            "short",
            ("onward_served_unwritten", "{{instance}}"),
            width=12,
            alerts=["OnwardUsageUnwritten"],
        ),
        curve(
            "How long do they wait?",
            "The oldest of a process; about ONWARD_SERVE_USAGE_SECONDS is good.",
            "s",
            ("onward_served_unwritten_seconds", "{{instance}}"),
            limits=[(300, "red")],
            width=12,
            alerts=["OnwardUsageUnwritten"],
        ),
    ]


def process() -> list[Built]:
    return [
        curve(
            "Memory of the API",
            "Resident memory of each process; steady is good.",
            "bytes",
            (f"process_resident_memory_bytes{{{API}}}", "{{instance}}"),
        ),
        curve(
            "Cores that the API uses",
            "Processor seconds a second; near 1 a process is at its end, add replicas.",
            "short",
            (f"rate(process_cpu_seconds_total{{{API}}}[$__rate_interval])", "{{instance}}"),
            limits=[(0.8, "orange")],
        ),
        curve(
            "Size of the database",
            "All of Onward's rows, files and adapters; plan its disk and its backups by the slope.",
            "bytes",
            ("max(onward_database_bytes)", "database"),
        ),
    ]


def _of(status: str) -> str:
    return f'sum(rate(onward_http_requests_total{{status=~"{status}"}}[$__rate_interval])) or vector(0)'
