"""Two releases in one Prometheus, each with the rules that the chart made for it."""

import json
import re
from pathlib import Path

import yaml

from tests.helm.charts import CHART, VALUES, helm, of_kind, only
from tests.monitoring.promql import ALERTS, RECORDED, metrics, promtool

MONITORED = VALUES[0].parent / "monitored.yaml"
INSTALLED = (("one", "a"), ("two", "a"), ("two", "b"))  # namespace, release


def made(namespace: str, release: str, folder: Path) -> Path:
    """The rule file that the chart makes for a release."""
    run = helm("template", release, str(CHART), "-n", namespace, "-f", str(MONITORED))
    assert run.returncode == 0, run.stderr
    rules = only(of_kind([o for o in yaml.safe_load_all(run.stdout) if o], "PrometheusRule"))
    path = folder / f"{namespace}-{release}.json"
    path.write_text(json.dumps(rules["spec"]))
    return path


def series(name: str, values: str, namespace: str, release: str, **labels: str) -> dict[str, str]:
    labels |= {"namespace": namespace, "release": release}
    inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{inner}}}", "values": values}


def test_every_rule_of_a_release_asks_for_its_own_series(tmp_path):
    rules = [r for g in json.loads(made("one", "a", tmp_path).read_text())["groups"] for r in g["rules"]]
    assert len(rules) == len(ALERTS) + len(RECORDED)
    for rule in rules:
        asked = re.findall(r'([\w:]+)\{namespace="one", release="a"[,}]', rule["expr"])
        assert set(asked) == metrics(rule["expr"]), rule["expr"]
        assert len(asked) == rule["expr"].count("{"), rule["expr"]


def test_only_the_release_that_suffers_alerts_and_it_alerts_once(tmp_path):
    """The third has no API: its absence has its name, and the other two do not make up for it."""
    files = [str(made(*installed, tmp_path)) for installed in INSTALLED]
    given = []
    for (namespace, release), ready in zip(INSTALLED[:2], ("0x30", "1x30"), strict=True):
        api = {"job": "onward-api", "instance": "a:9100"}
        given.append(series("up", "1x30", namespace, release, **api))
        given.append(series("onward_jobs", "3x30", namespace, release, **api, model="m", state="queued"))
        given.append(series("onward_workers", ready, namespace, release, **api, model="m", state="ready"))
    notes = {name: ALERTS[name]["annotations"] for name in ("OnwardQueueWithoutWorker", "OnwardTargetMissing")}
    waits = (
        notes["OnwardQueueWithoutWorker"]["description"]
        .replace("{{ $value }}", "3")
        .replace("{{ $labels.model }}", "m")
    )
    missing = notes["OnwardTargetMissing"]["description"].replace(
        "{{ $labels.job }} {{ $labels.instance }}", "onward-api "
    )
    expected = {
        "OnwardQueueWithoutWorker": ({"namespace": "one", "release": "a", "model": "m"}, waits),
        "OnwardTargetMissing": ({"namespace": "two", "release": "b", "job": "onward-api"}, missing),
    }
    cases = [
        {
            "eval_time": "15m",
            "alertname": name,
            "exp_alerts": [
                {
                    "exp_labels": labels | {"severity": "page"},
                    "exp_annotations": notes[name] | {"description": description},
                }
            ],
        }
        for name, (labels, description) in expected.items()
    ]
    test = {"interval": "1m", "input_series": given, "alert_rule_test": cases}
    path = tmp_path / "test.json"
    path.write_text(json.dumps({"rule_files": files, "evaluation_interval": "1m", "tests": [test]}))
    promtool("test", "rules", path)


def test_what_is_scraped_carries_the_labels_of_its_release():
    run = helm("template", "b", str(CHART), "-n", "two", "-f", str(MONITORED))
    objects = [o for o in yaml.safe_load_all(run.stdout) if o]
    for kind, key in (("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints")):
        (endpoint,) = only(of_kind(objects, kind))["spec"][key]
        set_to = {r["targetLabel"]: r["replacement"] for r in endpoint["relabelings"]}
        assert {"namespace": "two", "release": "b"}.items() <= set_to.items()


def test_no_rule_joins_or_sums_over_installations():
    for rule in (*ALERTS.values(), *RECORDED.values()):
        expr = " ".join(rule["expr"].split())
        for labels in re.findall(r"\b(?:by|on|group_left|group_right|ignoring|without) ?\(([^)]*)\)", expr):
            assert {"namespace", "release"} <= {label.strip() for label in labels.split(",")}, expr
        assert not re.search(r"\b(sum|max|min|avg|count|topk|stddev) ?\(", expr), expr
