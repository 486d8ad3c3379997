"""Every panel's query against a real run of the service, scraped by a real Prometheus: each must return numbers."""

import json
import time
from pathlib import Path

import pytest

from helm.monitoring import prometheus
from tests.monitoring.live import CLASSES, Live, live
from tests.waiting import HANG, until

FOLDER = Path(__file__).parents[2] / "helm" / "dashboards"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


@pytest.fixture(scope="module")
def run():
    """Work until all that is asked below has an answer, or never will: which one lacks it is for a test to say."""
    with live() as made:
        made.work(lambda: complete(made) or time.time() - made.began > HANG)
        yield made, time.time()


def complete(made: Live) -> bool:
    exprs = [q.expr for board in BOARDS.values() for q in prometheus.asked(board)]
    exprs += [rule["name"] for rule in recorded(made)]
    now = time.time()
    return all(prometheus.over(made.prometheus, expr, made.began, now, step=1.0) for expr in exprs) and enough(
        made, now
    )


def enough(made: Live, now: float) -> bool:
    """Every class has scored a fair number of tokens, prompts were found again, and jobs were chatted with."""
    tokens = prometheus.over(
        made.prometheus, "sum by (tenant_class) (onward_scored_tokens_total)", made.began, now, 1.0
    )
    found = prometheus.over(made.prometheus, 'onward_prompts_total{outcome="found"}', made.began, now, 1.0)
    worn = prometheus.over(made.prometheus, "onward_serve_adapters_made_total", made.began, now, 1.0)
    busy = {s.labels["tenant_class"] for s in tokens if s.points[-1][1] > 1000}
    chatted = sum(s.points[-1][1] for s in worn) > 5
    return busy == set(CLASSES) and chatted and any(s.points[-1][1] > 100 for s in found)


def rules(made: Live) -> list[dict[str, str]]:
    return [rule for group in prometheus.ask(made.prometheus, "rules")["groups"] for rule in group["rules"]]


def recorded(made: Live) -> list[dict[str, str]]:
    return [rule for rule in rules(made) if rule["type"] == "recording"]


@pytest.mark.parametrize("uid", BOARDS)
def test_every_query_of_every_panel_returns_a_number(run: tuple[Live, float], uid: str):
    made, now = run
    queries = list(prometheus.asked(BOARDS[uid]))
    assert len(queries) > 5
    empty = [
        f"{q.panel}: {q.expr}"
        for q in queries
        if not prometheus.over(made.prometheus, q.expr, made.began, now, step=1.0)
    ]
    assert not empty, "no data:\n" + "\n".join(empty)


def test_classes_and_both_activations_are_seen(run: tuple[Live, float]):
    made, now = run
    assert enough(made, now)


def test_all_rules_evaluate(run: tuple[Live, float]):
    made, _ = run
    assert len(rules(made)) > 40
    assert [(r["name"], r["lastError"]) for r in rules(made) if r["health"] != "ok"] == []
    names = [rule["name"] for rule in recorded(made)]
    assert [name for name in names if not prometheus.over(made.prometheus, name, made.began, time.time(), 1.0)] == []


def test_a_healthy_run_pages_nobody(run: tuple[Live, float]):
    """No page fires at any time, and at the end none is on its way."""
    made, now = run
    firing = prometheus.over(made.prometheus, 'ALERTS{severity="page", alertstate="firing"}', made.began, now, 1.0)
    assert [s.labels for s in firing] == []
    pending = 'ALERTS{severity="page"}'
    until(lambda: not prometheus.ask(made.prometheus, "query", query=pending)["result"], "no page is on its way")
    assert prometheus.over(made.prometheus, "ALERTS_FOR_STATE or vector(1)", now - 5, now, 1.0)


def test_a_dead_api_is_on_its_way_to_a_page(run: tuple[Live, float]):
    """The last test of this module: the API is killed, and the alerts of its absence begin to count."""
    made, _ = run
    made.stage.processes[0].kill()
    asked = 'ALERTS{alertname="OnwardTargetMissing"}'
    (missing,) = until(lambda: prometheus.ask(made.prometheus, "query", query=asked)["result"], "the alert")
    assert missing["metric"]["alertstate"] == "pending"
    assert missing["metric"]["job"] == "onward-api"
