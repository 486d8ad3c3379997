"""The rules: promtool accepts them, and every alert has a test in which it fires and one in which it is silent."""

import re
from pathlib import Path

import pytest
import yaml

from tests.monitoring.promql import ALERTS, RECORDED, RULES, metrics, promtool

CASES = sorted((Path(__file__).parent / "rules").glob("*.yaml"))


def test_promtool_accepts_the_rules():
    assert f"{len(ALERTS) + len(RECORDED)} rules found" in promtool("check", "rules", RULES)


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_alerts_fire_and_are_silent_where_they_should(path):
    promtool("test", "rules", path)


def test_every_alert_has_a_firing_and_a_silent_test():
    fires: set[str] = set()
    silent: set[str] = set()
    for path in CASES:
        for group in yaml.safe_load(path.read_text())["tests"]:
            for case in group["alert_rule_test"]:
                (fires if case["exp_alerts"] else silent).add(case["alertname"])
                verb = "fires" if case["exp_alerts"] else "is silent"
                assert group["name"].startswith(f"{case['alertname']} {verb}: ")
    assert fires == set(ALERTS) == silent


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_and_where_to_look(name):
    rule = ALERTS[name]
    assert name.startswith("Onward")
    assert rule["labels"]["severity"] in ("page", "ticket", "info")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert notes["summary"].endswith(".")
    assert "{{" not in notes["summary"]
    assert "{{" in notes["description"]
    assert re.fullmatch(rf"docs/runbooks/\w+\.md#{name.lower()}", notes["runbook_url"])


def test_recorded_names_say_level_metric_and_operation():
    for name, rule in RECORDED.items():
        assert re.fullmatch(r"(model|model_class|job):onward_\w+:\w+", name)
        assert metrics(rule["expr"])


def test_gauges_of_the_queue_are_never_summed_over_api_processes():
    """Several API processes export the same rows."""
    for rule in (*ALERTS.values(), *RECORDED.values()):
        assert not re.search(r"sum[^(]*(\([^)]*\))? ?\(onward_(jobs|workers|backlog|active|oldest|stale)", rule["expr"])
