"""The oracle against plain arithmetic: weights merged by hand, one unpadded sequence at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.bases import tiny
from tests.worker.scoring.cases import crowd, layout, linears, probe, text
from worker.oracle.torch_scorer import TorchScorer
from worker.oracle.worn import ADAPTERS
from worker.types import Trial


def merged(path: Path, trial: Trial) -> list[list[np.ndarray]]:
    """The model with W + (alpha / r) B A written into it, run on each sequence alone, in float64."""
    model = AutoModelForCausalLM.from_pretrained(path).double()
    if trial.layout is not None and trial.params is not None:
        for module, a, b in trial.layout.pairs(trial.params):
            update = trial.layout.scaling * torch.from_numpy(b).double() @ torch.from_numpy(a).double()
            model.get_submodule(module.name).weight.data += update
    out = []
    for example in trial.examples:
        with torch.inference_mode():
            logits = [model(torch.from_numpy(s).long()[None]).logits[0] for s in example.sequences]
        logs = [torch.log_softmax(x, -1).numpy() for x in logits]
        out.append([logs[c.sequence][c.positions, c.targets] for c in example.candidates])
    return out


@pytest.mark.parametrize(("arch", "tied"), [("opt", True), ("llama", False), ("qwen2", True)])
def test_equals_merged_weights(arch: str, tied: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tiny(arch, tmp_path_factory.getbasetemp(), tied)  # type: ignore[arg-type]
    trials = crowd(np.random.default_rng(21), linears(path))
    for trial, answer in zip(trials, TorchScorer(path).logprobs(trials), strict=True):
        for got, expected in zip(answer, merged(path, trial), strict=True):
            for a, b in zip(got, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


def test_base_model_is_bare_after_adapters_were_worn(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tiny("llama", tmp_path_factory.getbasetemp())
    rng = np.random.default_rng(22)
    shape = layout(linears(path), 2, 16.0)
    examples = (text(rng, 20),)
    bare, worn = Trial(None, None, examples, "lm"), Trial(shape, probe(rng, shape), examples, "lm")
    scorer = TorchScorer(path)
    before, with_adapter, after = (scorer.score([t])[0].total for t in (bare, worn, bare))
    assert before == after
    assert abs(with_adapter - before) > 0.1


def test_more_layouts_than_adapters_kept(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The oldest makes room and may come back: answers are those of a fresh oracle."""
    path = tiny("llama", tmp_path_factory.getbasetemp())
    rng = np.random.default_rng(23)
    examples = (text(rng, 12),)
    shapes = [layout(linears(path), rank, 16.0, "q_proj", "down_proj") for rank in range(1, ADAPTERS + 3)]
    trials = [Trial(s, probe(rng, s), examples, "lm") for s in (*shapes, *shapes[:2])]
    kept = TorchScorer(path)
    assert [x.total for x in kept.score(trials)] == [TorchScorer(path).score([t])[0].total for t in trials]
