"""The judge from outside agrees with the oracle inside, on rows whose choices differ in length."""

import pytest

from cli.demo.peft_loss import held_out
from tests.api.examples import CHOICE, jsonl
from tests.worker.adapters.published import adapter, base, spec
from worker.adapters import peft_files
from worker.oracle.torch_scorer import TorchScorer
from worker.runs import data, recipes
from worker.types import Trial

ROWS = [
    CHOICE | {"choices": [" terrible", " great and moving", " a long story"], "label": label}
    | {"prompt": "the film was a great story. " * (label + 1) + "It was"}
    for label in (0, 1, 2)
]  # fmt: skip


@pytest.mark.parametrize("arch", ["llama", "opt"])
def test_held_out_is_what_the_oracle_says(arch, tmp_path):
    model = base(arch, tmp_path / "base")
    asked = spec(arch)
    layout = recipes.layout(asked, model)
    params = adapter(asked, model)
    (tmp_path / "adapter").mkdir()
    for name, content in peft_files.directory(asked.adapter, layout, params, model.source, "test").items():
        (tmp_path / "adapter" / name).write_bytes(content)
    (tmp_path / "rows.jsonl").write_bytes(jsonl(*ROWS, CHOICE))
    inside = TorchScorer(model.path).score([Trial(layout, params, data.examples(model, jsonl(*ROWS)), "choice")])[0]
    bare = TorchScorer(model.path).score([Trial(None, None, data.examples(model, jsonl(*ROWS)), "choice")])[0]
    outside = held_out(model.source, tmp_path / "adapter", tmp_path / "rows.jsonl", rows=3)
    assert outside.rows == 3
    assert outside.loss == pytest.approx(inside.mean, abs=1e-5)
    assert outside.accuracy == inside.accuracy
    assert abs(inside.mean - bare.mean) > 1e-3  # the adapter matters here
