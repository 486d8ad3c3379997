"""The committed dashboards are what the generator writes, explain themselves, and ask for what exists."""

import re

import pytest
from prometheus_client.metrics import MetricWrapperBase

from api.ops import metrics as api_metrics
from api.settings import Settings
from helm.monitoring import dashboards
from helm.monitoring.prometheus import panels
from tests.monitoring.promql import ALERTS, BOARDS, QUERIES, RECORDED, ROOT, check, metrics, variables
from worker import metrics as worker_metrics

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
OTHERS = {"ALERTS", "up", "process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"}
UNITS = {"short", "none", "cps", "reqps", "percentunit", "s", "h", "bytes", "flops", "currencyUSD"}


@pytest.fixture(scope="module")
def exported(factory, redis_url) -> set[str]:
    """The names of all samples that API and worker can show."""
    registry, _ = api_metrics.registry(factory, Settings(models={"m": "/m"}, redis_url=redis_url))
    api_metrics.doorbells(registry, ["m"])
    api_metrics.ChatCounts(registry, ["m"])
    api_metrics.unwritten(registry, lambda: 0.0, lambda: 0.0)
    families = [*registry.collect()]
    families += [f for x in vars(worker_metrics).values() if isinstance(x, MetricWrapperBase) for f in x.collect()]
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    assert not labels & {"tenant", "tenant_id", "job_id", "key"}
    return {f.name + suffix for f in families for suffix in SUFFIXES.get(f.type, ("",))}


def test_the_committed_files_are_what_the_generator_writes():
    """Else: python -m helm.monitoring."""
    written = {path.name: path.read_text() for path in dashboards.FOLDER.glob("*.json")}
    assert written == dashboards.texts()
    assert dashboards.texts() == dashboards.texts()


def test_each_expression_parses(tmp_path):
    assert len(QUERIES) > 100
    check((query.expr for _, query in QUERIES), tmp_path)


def test_each_expression_names_metrics_that_exist(exported):
    known = exported | OTHERS | set(RECORDED)
    unknown = [(uid, q.panel, names) for uid, q in QUERIES if (names := metrics(q.expr) - known)]
    assert unknown == []
    assert not OTHERS & {name for name in exported if name.startswith("onward_")}


def test_nothing_that_is_exported_goes_unseen(exported):
    """Each metric of ours is on a dashboard or in a rule."""
    rules = {name for rule in (*ALERTS.values(), *RECORDED.values()) for name in metrics(rule["expr"])}
    seen = rules.union(*(metrics(q.expr) for _, q in QUERIES))
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in exported if name.startswith("onward_")}
    assert {f for f in families if not any(name.startswith(f) for name in seen)} == set()


def test_each_expression_asks_one_installation():
    """So two releases in one Prometheus are never added up: each name has its braces, and each brace both labels."""
    for uid, query in QUERIES:
        asked = re.sub(r"\{[^{}]*\}", lambda braces: "{ok}" if asks_one(braces[0]) else braces[0], query.expr)
        bare = [name for name in metrics(query.expr) if re.search(rf"(?<![\w:]){name}(?!\{{ok\}}|[\w:])", asked)]
        assert (uid, query.panel, bare) == (uid, query.panel, [])
        assert asked.count("{") == asked.count("{ok}"), query.expr


def asks_one(selector):
    return all(re.search(rf'\b{label}(=|=~)"\${label}\|?"', selector) for label in ("namespace", "release"))


@pytest.mark.parametrize("uid", BOARDS)
def test_one_installation_is_chosen_at_a_time(uid):
    variables = {v["name"]: v for v in BOARDS[uid]["templating"]["list"]}
    for name in ("namespace", "release"):
        assert not variables[name].get("multi")
        assert not variables[name].get("includeAll")
    assert asks_one(variables["model"]["query"])


@pytest.mark.parametrize("uid", BOARDS)
def test_a_dashboard_explains_itself(uid):
    board = BOARDS[uid]
    assert board["uid"] == uid
    assert board["title"].startswith("Onward / ")
    assert {"$datasource", "$namespace", "$release", "$model", "$runbooks"} <= variables(board)
    assert board["links"][0]["tags"] == ["onward"] == board["tags"]
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles)
    for panel in panels(board):
        about = panel["description"]
        assert about.endswith("."), panel["title"]
        assert ". " not in about, f"one sentence: {about}"
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert target["legendFormat"], panel["title"]
            assert set(re.findall(r"\$(?!__)\w+", target["expr"])) <= variables(board)
            assert not re.search(r"rate\([^()]*\[\d+[smh]\]", target["expr"]) or "[1h]" in target["expr"]


@pytest.mark.parametrize("uid", BOARDS)
def test_panels_do_not_lie_on_one_another(uid):
    taken: set[tuple[int, int]] = set()
    for panel in BOARDS[uid]["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells


def test_links_of_panels_lead_to_runbooks():
    links = [link["url"] for board in BOARDS.values() for panel in panels(board) for link in panel.get("links", [])]
    assert len(links) > 40
    pages = {rule["annotations"]["runbook_url"].removeprefix("docs/runbooks/") for rule in ALERTS.values()}
    led = {link.removeprefix("${runbooks}/") for link in links}
    assert led <= pages
    named = {"OnwardVersionsDiffer"}  # has no curve: the alert is a table of versions
    assert {name for name, rule in ALERTS.items() if rule["annotations"]["runbook_url"][14:] not in led} <= named


def test_pictures_show_every_dashboard():
    index = (ROOT / "docs" / "dashboards" / "README.md").read_text()
    for uid in BOARDS:
        assert (ROOT / "docs" / "dashboards" / f"{uid}.png").exists()
        assert f"({uid}.png)" in index
