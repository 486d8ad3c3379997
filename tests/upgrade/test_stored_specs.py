"""Specs as release 0.1 wrote them, flat and with LOZO's fields in MeZO's rows: they load, and replay to the same hash.

`specs-0.1.json` holds specs, journals and the adapters' SHA-256, all made by 0.1 on the tiny Llama.
"""

import json
from pathlib import Path

import pytest

from db.contract import methods
from db.contract.spec import JobSpec, stored
from db.contract.tokens.base_model import Base, open_base
from tests.bases import tiny
from worker.adapters import peft_files
from worker.runs import recipes
from worker.runs.replay import replay

ROWS = json.loads((Path(__file__).parent / "specs-0.1.json").read_text())
each = pytest.mark.parametrize("row", ROWS, ids=[f"{i}-{r['spec']['method']['name']}" for i, r in enumerate(ROWS)])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return open_base("tiny-llama", str(tiny("llama", tmp_path_factory.mktemp("models"))))


@each
def test_it_loads_with_what_its_method_has(row):
    kept = row["spec"]["method"]
    assert {"nu", "window_rank", "beta2", "clip"} <= kept.keys(), "0.1 wrote every method's fields into every row"
    spec = stored(row["spec"])
    here = spec.method.model_dump()
    assert {name: value for name, value in here.items() if name in kept} == {k: kept[k] for k in here if k in kept}
    since = {name: value for name, value in here.items() if name not in kept}
    fields = methods.ARMS[spec.method.name].model_fields
    assert since == {name: fields[name].default for name in since}, "what came since stands as it was then"
    assert stored(spec.model_dump(mode="json")) == spec
    if spec.method.name == "mezo":
        with pytest.raises(ValueError, match="nu"):  # a request is not forgiven what a row is
            JobSpec.model_validate(row["spec"])


@each
def test_it_replays_to_the_hash_that_0_1_published(row, base: Base):
    spec = stored(row["spec"])
    layout = recipes.layout(spec, base)
    point = replay(recipes.method(spec, layout), row["journal"])
    assert peft_files.sha256(peft_files.weights(layout, point.params)) == row["sha256"]
