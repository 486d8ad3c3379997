"""Every panel's query against a real run of the service, scraped by a real Prometheus: each must return numbers."""

import json
import time
from pathlib import Path

import pytest

from helm.monitoring import prometheus
from tests.monitoring.live import CLASSES, Live, live

FOLDER = Path(__file__).parents[2] / "helm" / "dashboards"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
SECONDS = 45.0


@pytest.fixture(scope="module")
def run():
    with live() as made:
        made.work(SECONDS)
        time.sleep(3)  # the last scrape and what is recorded from it
        yield made, time.time()


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
    tokens = prometheus.over(
        made.prometheus, "sum by (tenant_class) (onward_scored_tokens_total)", made.began, now, 1.0
    )
    assert {s.labels["tenant_class"] for s in tokens} == set(CLASSES)
    assert all(s.points[-1][1] > 1000 for s in tokens)
    (found,) = prometheus.over(made.prometheus, 'onward_prompts_total{outcome="found"}', made.began, now, 1.0)
    assert found.points[-1][1] > 100


def test_all_rules_evaluate(run: tuple[Live, float]):
    made, _ = run
    groups = prometheus.ask(made.prometheus, "rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) > 40
    assert [(r["name"], r["lastError"]) for r in rules if r["health"] != "ok"] == []
    recorded = [r["name"] for r in rules if r["type"] == "recording"]
    assert [name for name in recorded if not prometheus.over(made.prometheus, name, made.began, time.time(), 1.0)] == []


def test_a_healthy_run_pages_nobody(run: tuple[Live, float]):
    """No page fires at any time, and at the end none is on its way."""
    made, now = run
    firing = prometheus.over(made.prometheus, 'ALERTS{severity="page", alertstate="firing"}', made.began, now, 1.0)
    assert [s.labels for s in firing] == []
    pending = prometheus.over(made.prometheus, 'ALERTS{severity="page"}', now - 5, now, 1.0)
    assert [s.labels for s in pending] == []
    assert prometheus.over(made.prometheus, "ALERTS_FOR_STATE or vector(1)", now - 5, now, 1.0)


def test_a_dead_api_is_on_its_way_to_a_page(run: tuple[Live, float]):
    """The last test of this module: the API is killed, and the alerts of its absence begin to count."""
    made, _ = run
    made.stage.processes[0].kill()
    time.sleep(4)
    (missing,) = prometheus.ask(made.prometheus, "query", query='ALERTS{alertname="OnwardTargetMissing"}')["result"]
    assert missing["metric"]["alertstate"] == "pending"
    assert missing["metric"]["job"] == "onward-api"
