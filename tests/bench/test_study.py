"""The study's rows are fresh, its figures are what its cells say, and page and presets are what its JSON gives."""

import json
import math
from dataclasses import replace

import pytest

from bench.report.measure import RESULTS
from bench.study import completions, drift, figures, grid, lines, presets, store, tables, taught
from bench.study.__main__ import PAGE, PRESETS, README, left
from bench.study.lines import Cell
from bench.study.rows import DEV, REPORT, rows
from bench.study.store import Measured, Point, Study
from cli.demo.datasets import sentiment, topic
from db.contract import methods
from db.contract.evidence import EVIDENCE
from db.contract.presets import fields, preset
from tests.docs.following import ROOT

COMMITTED = store.load()
TASKS = lines.TASKS["choice"]


def cell(line="one", task="topic", seed=0, losses=(1.0, 0.5), method="mezo", family="f", **changed):
    """Ten processor seconds a point, two of them of prompts; the development loss is 0.1 lower."""
    points = [
        Point(10 * n, 20 * n, 30 * n, 8.0 * n, 2.0 * n, 9.0 * n, (loss - 0.1, 0.6), (loss, 0.5))
        for n, loss in enumerate(losses)
    ]
    spec = {"eps": 0.01, "learning_rate": 0.1, "clip": None, "name": method}
    adapter = {"rank": 8, "alpha": 16.0, "targets": ["v_proj"]}
    asked = {"steps": 10 * len(points) - 10, "batch_size": 2, "repeat": 1, "method": spec, "adapter": adapter}
    key = f"{line} / answer / {task} / seed {seed}"
    known = Measured(key, line, family, method, "answer", task, seed, False, asked, "done", 1.0, 0, points)
    return replace(known, **changed)


def study(*cells):
    machine = {"cpu": "c", "cores": 2, "python": "3", "versions": {}, "date": "2026-01-01"}
    return Study([machine], {}, {c.key: c for c in cells})


@pytest.mark.parametrize("task, demo", [("sentiment", sentiment), ("topic", topic)])
def test_rows_to_choose_on_and_rows_reported_are_new_disjoint_and_balanced(task, demo):
    made = rows(task)
    train, dev, report = (
        [json.loads(line) for line in part.splitlines()] for part in (made.train, made.dev, made.report)
    )
    assert train == demo()[0]
    looked_at = {row["prompt"] for part in demo() for row in part}
    new = [row["prompt"] for row in (*dev, *report)]
    assert len(set(new) - looked_at) == len(new) == DEV + REPORT
    for part in (dev, report):
        labels = [row["label"] for row in part]
        assert {labels.count(label) for label in set(labels)} == {len(part) / len(part[0]["choices"])}


def test_a_loss_is_reached_and_read_between_evaluations_prompts_counted():
    points = cell(losses=(1.0, 0.8, 0.9, 0.4)).points
    assert figures.reached(points, 1.0) == 0
    assert figures.reached(points, 0.9) == pytest.approx(5)
    assert figures.reached(points, 0.6) == pytest.approx(20 + 10 * 0.3 / 0.5)
    assert figures.reached(points, 0.3) is None
    assert figures.loss_at(points, 15, "report") == pytest.approx(0.85)
    assert figures.loss_at(points, 15, "dev") == pytest.approx(0.75)
    assert figures.loss_at(points, 99, "report") == pytest.approx(0.4)


def both(line, dev, report=0.5, seed=0, **changed):
    """On both tasks, these losses at every point."""
    points = [replace(p, dev=(dev, 0.5), report=(report, 0.5)) for p in cell().points]
    return [cell(line, task, seed, points=points, **changed) for task in TASKS]


def test_lines_are_chosen_on_development_rows_and_on_both_tasks():
    found = study(*both("good", dev=0.5, report=0.7), *both("other", dev=0.6, report=0.1), cell("half", losses=(0, 0)))
    assert figures.chosen(found, "family") == {("f", "choice", "answer"): ("good", "answer")}


@pytest.mark.parametrize("dev, taken", [(0.45, "steady"), (0.41, "lucky")])
def test_a_lucky_seed_displaces_no_line_of_three_within_the_noise(dev, taken):
    """Two standard errors are 0.16 of one seed and 0.092 of three."""
    steady = [one for seed in lines.SEEDS for one in both("steady", dev=0.5, seed=seed)]
    found = figures.chosen(study(*steady, *both("lucky", dev=dev)), "method")
    assert found == {("mezo", "choice", "answer"): (taken, "answer")}
    assert figures.choice({task: [c for c in steady if c.task == task] for task in TASKS}) == pytest.approx(
        0.592, abs=1e-3
    )


def test_the_harder_target_takes_a_line_of_all_seeds():
    lucky = [cell("lucky", t, losses=(1.0, 0.4)) for t in TASKS]
    assert presets.evidence(study(*lucky))[0].target == pytest.approx(0.73)  # early: 0.309 and 0.231 down
    steady = [cell("steady", t, seed, losses=(1.0, 0.4), method="es") for t in TASKS for seed in lines.SEEDS]
    assert {e.target for e in presets.evidence(study(*lucky, *steady))} == {0.68}  # late: 0.343 and 0.297


def test_ten_conversations_say_how_often_a_row_is_visited_and_not_how_many_steps_a_larger_file_takes():
    talk = cell("talk", "chat", method="first_order", autograd=True, losses=(4.0, 2.0, 0.1), activation="all")
    talk.asked.update(steps=30, batch_size=8, method={"name": "first_order", "learning_rate": 5e-3})
    (found,) = presets.evidence(study(talk))
    assert (found.objective, found.activation, found.target) == ("lm", "all", 3.0)
    assert (found.preset.steps, found.preset.epochs, found.preset.batch_size) == (100, 24, 8)
    said: dict[str, object] = {}
    exec(presets.source(study(talk)), said)
    assert said["EVIDENCE"] == (found,)


def test_a_seed_that_does_not_get_there_leaves_no_time_and_is_told():
    there = [cell(task=task, losses=(1.0, 0.5)) for task in TASKS]
    never = [cell(task=task, losses=(1.0, 0.9), seed=1) for task in TASKS]
    assert figures.all_seconds({c.task: [c] for c in there}, "late") == pytest.approx((6.86 + 5.94) / 2)
    found = study(*there, *never)
    assert presets.evidence(found)[0].seconds is None
    assert "(1 of 2 seeds)" in tables.page(found)
    assert "| never |" in tables.page(study(*(replace(c, seed=0) for c in never)))


def test_failures_stay_in_and_what_was_not_run_is_said():
    failed = cell(losses=(1.0, math.nan), ended="losses were not finite")
    page = tables.page(study(failed))
    assert "losses were not finite" in page
    assert "nan" in page
    assert f"* {grid.LINES[0].name}, answer: sentiment seed 0, 1, 2; topic seed 0, 1, 2" in page
    assert tables.page(Study()).count("Not measured.") == 4
    assert f"* {grid.LINES[0].name}" not in tables.page(study(failed), whole=False)


def test_a_run_that_is_not_finite_is_never_chosen():
    bad = [cell("bad", task, losses=(1.0, math.nan)) for task in TASKS]
    good = [cell("good", task, losses=(1.0, 0.99)) for task in TASKS]
    for order in ((*bad, *good), (*good, *bad)):
        assert figures.chosen(study(*order), "method") == {("mezo", "choice", "answer"): ("good", "answer")}


def test_evidence_is_the_soonest_first_and_a_file_that_says_it(tmp_path):
    both = [cell("slow", t, losses=(1.0, 0.9, 0.4), family="s") for t in TASKS]
    both += [cell("fast", t, losses=(1.0, 0.4), method="lozo", autograd=True) for t in TASKS]
    found = presets.evidence(study(*both))
    assert [(e.method, e.autograd) for e in found] == [("lozo", True), ("mezo", False)]
    assert (found[0].preset.steps, found[0].preset.settings["learning_rate"]) == (10, 0.1)
    assert "clip" not in found[0].preset.settings
    said: dict[str, object] = {}
    exec(presets.source(study(*both)), said)
    assert said["EVIDENCE"] == tuple(found)


def run_of(asked):
    """A cell of this line, as its spec came to it."""
    own = asked.line.asked
    known = cell(asked.line.name, asked.task, asked.seed, method=own["method"], family=asked.line.family)
    flat = json.loads(json.dumps(own))
    return replace(known, key=asked.key, asked={**known.asked, **flat, "method": {**flat, "name": own["method"]}})


def test_a_study_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "study.json"
    asked = list(grid.cells((), seeds=(0,)))
    failed, done = cell(losses=(1.0, math.nan)), run_of(asked[0])
    store.save(study(failed), path)
    with store.held(path) as known:
        known.cells[done.key] = done
    again = store.load(path)
    assert again.cells[done.key] == done
    assert math.isnan(again.cells[failed.key].points[1].report[0])
    assert left(again, asked) == asked[1:]
    assert left(again, asked, again=True) == asked
    here = {**again.machines[0], "date": "2026-02-02"}
    assert left(again, asked, machine=here) == asked[1:]
    assert left(again, asked, machine={**here, "cores": 3}) == asked
    changed = replace(done, asked={**done.asked, "method": {**done.asked["method"], "learning_rate": 9.0}})
    assert left(study(changed), asked) == asked  # of the line as it is now
    assert store.machine_number(again, {**again.machines[0], "date": "2026-02-02"}) == 0
    assert store.machine_number(again, {**again.machines[0], "cores": 3}) == 1


def test_every_line_is_asked_in_the_contracts_words_and_the_quick_ones_are_there():
    assert len({line.name for line in grid.LINES}) == len(grid.LINES)
    assert set(grid.QUICK) <= {line.name for line in grid.LINES}
    assert {line.method for line in grid.LINES} == set(methods.ARMS)
    for line in grid.LINES:
        assert set(line.asked) <= set(fields())
        assert list(line.points) == sorted(set(line.points))


def test_the_committed_cells_are_runs_of_the_lines_as_they_are():
    known = {line.name: line for line in grid.LINES}
    for measured in COMMITTED.cells.values():
        assert grid.same(measured, known[measured.line]), measured.key


def test_the_readmes_table_is_what_the_results_give():
    said = (ROOT / README).read_text(encoding="utf-8")
    assert taught.put(said, COMMITTED) == said
    assert all(f"| `{method}` |" in said for method in methods.ARMS)


def test_the_page_is_what_the_results_give():
    assert (ROOT / PAGE).read_text(encoding="utf-8") == tables.page(COMMITTED)


def test_the_presets_are_what_the_results_give():
    assert (ROOT / PRESETS).read_text(encoding="utf-8") == presets.source(COMMITTED)
    for one in EVIDENCE:
        assert one.method in methods.ARMS
        assert one.autograd is methods.ARMS[one.method].autograd
        assert preset("smollm2-135m", one.objective, one.method, one.activation) is one.preset


def test_drifts_are_beside_each_other_once_one_is_measured_and_the_others_say_so():
    before = study(cell("one"), cell("two"))
    assert "Drift at the end" not in tables.page(before)
    page = tables.page(study(cell("one", drift=0.03), cell("one", seed=1, drift=0.05), cell("two")))
    assert "| one | 0.040 ± 0.014 |" in page.partition("### Drift at the end")[2]
    assert f"| two | {tables.UNKNOWN} |" in page.partition("### Drift at the end")[2]


def test_a_cell_of_before_drift_keeps_its_line_in_the_file(tmp_path):
    file = tmp_path / "study.json"
    store.save(study(cell("one"), cell("two", drift=0.03)), file)
    one, two = file.read_text().splitlines()[1:3]
    assert "drift" not in one
    assert '"drift": 0.03' in two
    assert [c.drift for c in store.load(file).cells.values()] == [None, 0.03]
    store.save(COMMITTED, file)
    assert file.read_text() == store.COMMITTED.read_text()


def test_the_page_of_completions_has_its_table_and_its_cells_are_of_its_lines():
    cells = json.loads((RESULTS / "completions.json").read_text())["cells"]
    keys = {Cell(line, task, 0).key for line in completions.lines() for task in completions.TASKS}
    assert cells.keys() <= keys
    assert completions.table(cells) in (ROOT / "docs/methods/completions.md").read_text()


def test_the_page_of_drift_has_its_table_and_its_cells_are_of_its_lines():
    cells = json.loads((RESULTS / "drift.json").read_text())["cells"]
    known = {line.name: line for line in drift.lines()}
    for found in cells.values():
        method = known[found["line"]].asked
        assert {k: v for k, v in found["asked"]["method"].items() if k in method} == {
            k: v for k, v in method.items() if k in found["asked"]["method"]
        }
    assert drift.table(cells) in (ROOT / "docs/methods/drift.md").read_text()
