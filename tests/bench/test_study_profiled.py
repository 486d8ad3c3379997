"""Lines whose methods read a profile: what it was made as is a part of the line, and its cost is said apart."""

import hashlib
import json
from dataclasses import replace

import pytest

from bench.study import grid, presets, store, tables
from bench.study.profiled import Profiles
from bench.workloads import invocation_of
from db.contract import choosing, methods
from db.contract.choosing import Kind
from db.contract.presets import counted
from db.contract.profiles import needed
from db.contract.tokens.base_model import open_base
from tests.bases import tiny
from tests.bench.test_study import TASKS, cell, run_of, study

PROFILED = [line for line in grid.LINES if line.profile]
HASH = "3f" * 32
SAID = ["|g|^2 0.4", "over 50 rows"]
TOLD = {"kind": "mask", "share": 0.1, "rows": 50, "seconds": 31.5, "said": SAID, "sha256": HASH}
ROWS = b"".join(
    json.dumps({"prompt": f"film {i} was", "choices": [" a", " b"], "label": i % 2}).encode() + b"\n" for i in range(9)
)


def reading(*, seconds=31.5, task="topic", losses=(1.0, 0.4)):
    own = cell("reads", task, method="senszoq", losses=losses, profile={**TOLD, "seconds": seconds})
    own.asked["method"] = {**own.asked["method"], "name": "senszoq", "profile": HASH}
    return own


def test_every_method_that_needs_a_profile_has_a_line_that_makes_one_of_a_kind_it_reads():
    assert {line.method for line in PROFILED} == {name for name in methods.ARMS if needed(name)}
    for line in PROFILED:
        assert line.profile["kind"] in needed(line.method)
        assert "profile" not in line.asked


@pytest.mark.parametrize("line", PROFILED, ids=lambda line: line.name)
def test_a_cell_is_of_its_line_only_with_the_profile_that_the_line_makes(line):
    made = replace(run_of(grid.Cell(line, "topic", 0)), profile={**TOLD, **line.profile})
    if depth := counted(line.asked["layers"]):
        made.asked["adapter"]["layers"] = list(range(depth))
    assert grid.same(made, line)
    assert not grid.same(replace(made, profile={**made.profile, "kind": "another"}), line)
    assert not grid.same(replace(made, profile=None), line)


def test_what_making_it_took_is_said_apart_and_moves_no_other_figure():
    page = tables.page(study(reading()))
    assert f"| {HASH[:12]} | topic | kind mask, share 0.1, rows 50 | 31.5 | \\|g\\|^2 0.4; over 50 rows |" in page
    dear = tables.page(study(reading(seconds=99.0)))
    assert dear.replace("99.0", "31.5") == page
    assert HASH not in page
    assert "### Profiles" not in tables.page(study(cell()))


def test_no_preset_names_a_profile_and_auto_takes_none_that_needs_one():
    (found,) = presets.evidence(study(*(reading(task=task) for task in TASKS)))
    assert found.seconds is not None
    assert "profile" not in found.preset.settings
    kind = Kind("smollm2-135m", "choice", "answer")
    assert [one.method for one in choosing.choices(kind, {}, (found,))] == [choosing.FORWARD]


def test_a_cell_keeps_what_its_profile_was_and_those_of_before_say_nothing(tmp_path):
    file = tmp_path / "study.json"
    store.save(study(cell("one"), reading()), file)
    first, second = file.read_text().splitlines()[1:3]
    assert "profile" not in first
    assert HASH in second
    assert [c.profile for c in store.load(file).cells.values()] == [None, reading().profile]


def test_a_profile_is_made_once_a_task_and_of_acting_tokens_unless_the_line_says_all(tmp_path):
    base = open_base("tiny", str(tiny("llama", tmp_path)))
    made, acting = Profiles(base), invocation_of(base, ROWS)
    first, few = (next(line for line in PROFILED if line.profile.get("activation") == act) for act in ("all", None))
    basis = replace(few, profile={"kind": "basis"}, fields={**few.fields, "layers": "all"})
    found = made.of(grid.Cell(first, "topic", 0), ROWS, acting)
    assert made.of(grid.Cell(first, "topic", 1), b"", acting) is found
    assert found.told["sha256"] == hashlib.sha256(found.data).hexdigest()
    assert found.told["seconds"] > 0
    assert made.of(grid.Cell(grid.LINES[0], "topic", 0), ROWS, acting) is None
    with pytest.raises(ValueError, match="fewer than 8 directions"):  # of v_proj at the first layer
        made.of(grid.Cell(basis, "topic", 0), ROWS, acting)
