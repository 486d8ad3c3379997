"""The small studies: pages have their tables, cells are runs of their lines, and what a file has is not run again."""

import json
import sys

import pytest

from bench.report.measure import RESULTS
from bench.study import alignment, grid, radius, scales, small, sparsity, train
from bench.study.lines import Cell
from bench.study.rows import rows
from bench.study.store import Measured
from cli.demo.datasets import TOPICS
from db.contract.precision import LEAST_EPS
from tests.bench.test_study import cell
from tests.docs.following import ROOT
from worker import environment

STUDIES = {"alignment": alignment, "scales": scales, "sparsity": sparsity, "radius": radius}
PAGE = "docs/methods/settings.md"


@pytest.mark.parametrize("name", STUDIES)
def test_the_page_of_settings_has_its_tables_and_its_cells_are_runs_of_their_lines(name):
    cells = json.loads((RESULTS / f"{name}.json").read_text())["cells"]
    known = {line.name: line for line in STUDIES[name].lines()}
    for key, raw in cells.items():
        found = Measured(**raw)
        assert grid.same(found, known[found.line]), key
        assert key == Cell(known[found.line], found.task, found.seed).key
    assert STUDIES[name].table(cells) in (ROOT / PAGE).read_text()


@pytest.mark.parametrize("task", small.DEMO)
def test_the_plain_template_has_the_demos_text_and_choices_and_no_word_of_the_task(task):
    for part in ("train", "dev", "report"):
        told, plain = (
            [json.loads(line) for line in getattr(rows(task, template), part).splitlines()]
            for template in ("demo", "plain")
        )
        for one, other in zip(told, plain, strict=True):
            text = other["prompt"].removesuffix("\n")
            assert one["prompt"] in (f"Review: {text}\nRating:", f"{text}\nTopic:")
            assert {**one, "prompt": ""} == {**other, "prompt": ""}
    assert len(told[0]["choices"]) == {"sentiment": 2, "topic": len(TOPICS)}[task]


def test_a_sparse_lines_first_move_is_as_long_as_the_whole_ones():
    whole, *parts = sparsity.lines()
    for line in parts:
        moved = line.fields["density"] if line.method == "lezo" else 1.0  # all of B is in the first of smallest entries
        assert line.fields["learning_rate"] * moved == pytest.approx(whole.fields["learning_rate"])


def test_radii_on_either_side_of_what_a_job_may_ask_for_are_run():
    eps = [line.fields["eps"] for line in radius.lines() if line.dtype == "bfloat16"]
    assert min(eps) < LEAST_EPS["bfloat16"] <= max(eps)


def test_a_table_tells_one_seed_or_the_mean_of_more_and_what_failed_or_is_not_there():
    whole, *parts = sparsity.lines()
    cells = [cell(whole.name, task, seed, (1.0, 0.7, 0.5 + seed / 10), drift=0.1) for task, seed in (("topic", 0),)]
    cells += [cell(whole.name, "sentiment", seed, (1.0, 0.7, 0.5 + seed / 10)) for seed in (0, 1)]
    cells += [cell(parts[0].name, "topic", 0, (1.0, 0.7, float("nan")), ended="losses were not finite")]
    found = {one.key: json.loads(json.dumps(vars(one), default=vars)) for one in cells}
    bare, first, second, third = small.ends(found, {"bare base": [whole, *parts[:2]]}).splitlines()[2:]
    assert bare == "| bare base | 1.000 | 1.000 | 0.500 | 0 | 1.000 | 1.000 | 0.500 | 0 |"
    assert "| 0.700 ± 0.000 | 0.550 ± 0.071 | 0.500 ± 0.000 | not measured | 0.700 | 0.500 | 0.500 | 0.100 |" in first
    assert "| not measured | | |  | 0.700 |" in second
    assert "nan, losses were not finite" in second
    assert third.count("not measured") == 2


def test_each_dtype_has_one_engine_and_a_cell_of_the_file_is_not_run_again(tmp_path, monkeypatch, capsys):
    opened, ran = [], []

    class Bench:
        def __init__(self, dtype):
            opened.append(dtype)
            assert opened.count(dtype) == 1

        def run(self, asked, say):  # noqa: ARG002
            assert asked.line.dtype == opened[-1]
            ran.append(asked.key)
            return cell(asked.line.name, asked.task, asked.seed, key=asked.key)

        def close(self):
            ran.append(f"close {opened[-1]}")

    monkeypatch.setattr(environment, "prepare", lambda *_: None)
    monkeypatch.setattr(train, "opened", lambda _home, _machine, dtype: Bench(dtype))
    out = tmp_path / "radius.json"

    def asked(*more):
        monkeypatch.setattr(sys, "argv", ["x", "--out", str(out), *more])
        small.main("radius", None, radius.lines(), ("topic",), lambda found: str(len(found)))
        return int(capsys.readouterr().out)

    assert asked("--lines", "float32, eps 0.01") == 1
    assert ran == ["float32, eps 0.01 / answer / topic / seed 0", "close float32"]
    opened.clear()
    assert asked() == 10
    assert len(set(ran)) == 12  # ten cells, two engines closed
    assert ran.count("float32, eps 0.01 / answer / topic / seed 0") == 1
    assert asked("--table", "--seeds", "1") == 10
    opened.clear()
    assert asked("--lines", "bfloat16, eps 0.1", "--seeds", "1", "2") == 12
    assert opened == ["bfloat16"]
