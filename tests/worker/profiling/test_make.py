"""Profiles of a tiny base by the real scorer: what they hold is what the definitions say, and a seed gives the same."""

import json

import numpy as np
import pytest
import torch

from db.contract.tokens.base_model import open_base
from tests.bases import tiny
from worker.oracle.dequantised import load_model
from worker.oracle.torch_scorer import TorchScorer
from worker.profiling import activations
from worker.profiling.make import Wanted, make
from worker.profiling.meta import Plan
from worker.runs import profiles
from worker.runs.data import examples
from worker.types import Trial
from worker.zo.methods.mezo import AdapterSpace

TARGETS = ("q_proj", "v_proj")
SMALL = Plan(steps=6, restart=3, batch=2, hidden=3)
# Nearly all of one label, so that so few of them have a gradient that stands out from its noise.
ROWS = b"".join(
    json.dumps({"prompt": f"the film {i} was", "choices": [" a long bore", " a fine story"], "label": i // 8}).encode()
    + b"\n"
    for i in range(9)
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return open_base("tiny", str(tiny("llama", tmp_path_factory.mktemp("base"))))


def wanted(kind, **changed):
    return Wanted(kind, rank=2, targets=TARGETS, plan=SMALL, **changed)


def test_a_mask_is_the_top_of_the_scorers_own_squared_gradients(base):
    made = make(wanted("mask", share=0.1, seed=5), base, [ROWS])
    found = profiles.read(made.data)
    layout = found.layout
    params, _ = AdapterSpace(layout, 5).start()
    scorer = TorchScorer(base.path)
    squares = np.zeros(layout.size)
    for one in examples(base, ROWS):
        squares += np.square(scorer.score([Trial(layout, params, (one,), "choice", gradient=True)])[0].gradient)
    scorer.close()
    kept = np.unpackbits(found.tensors["mask"], count=layout.size).astype(bool)
    assert kept.sum() == round(0.1 * layout.size)
    assert squares[kept].min() >= squares[~kept].max() * (1 - 1e-4)
    assert (found.of.base, found.start, found.of.kind) == (base.fingerprint, 5, "mask")
    assert found.told["rows"] == 9
    assert "at most" in made.said[-1]


def test_an_activation_basis_is_numpys_svd_of_the_inputs(base):
    found = profiles.read(make(wanted("basis"), base, [ROWS]).data)
    model, inputs = load_model(base.path).eval(), {}
    for module in found.layout.modules:
        keep = inputs.setdefault(module.name, [])
        model.get_submodule(module.name).register_forward_pre_hook(lambda _, args, keep=keep: keep.append(args[0][0]))
    starts = []
    with torch.inference_mode():
        for one in examples(base, ROWS):
            for number, ids in enumerate(one.sequences):
                starts.append(one.shared if number else 0)
                model(input_ids=torch.from_numpy(ids).long()[None])
    assert any(starts)
    for module in found.layout.modules:
        x = np.concatenate([a.numpy()[s:] for a, s in zip(inputs[module.name], starts, strict=True)]).astype(np.float64)
        _, _, vt = np.linalg.svd(x, full_matrices=False)
        mine = found.tensors[module.name].astype(np.float64)
        np.testing.assert_allclose(np.abs((mine * vt[:2]).sum(1)), 1, atol=1e-5)
        assert (np.take_along_axis(mine, np.abs(mine).argmax(1)[:, None], 1) > 0).all()


def test_what_an_adapter_does_not_act_on_is_not_looked_at(base):
    rows = b"".join(
        json.dumps({"prompt": f"the film {i} was Answer:", "choices": [" bad", " great"], "label": i % 2}).encode()
        + b"\n"
        for i in range(9)
    )
    everywhere = profiles.read(make(wanted("basis"), base, [rows]).data)
    behind = profiles.read(make(wanted("basis", invocation="Answer:"), base, [rows]).data)
    assert behind.about["activation"] == "answer"
    name = everywhere.layout.modules[0].name
    assert np.abs(everywhere.tensors[name] - behind.tensors[name]).max() > 1e-3
    assert everywhere.of.layout == behind.of.layout


def test_too_few_inputs_for_the_rank_are_told():
    x = np.random.default_rng(1).normal(size=(3, 8))
    assert activations.directions(x.T @ x, 3).shape == (3, 8)
    with pytest.raises(ValueError, match="fewer than 4 directions"):
        activations.directions(x.T @ x, 4)


@pytest.mark.parametrize("kind", ["mask", "factors", "basis", pytest.param("mlp", marks=pytest.mark.slow)])
def test_the_same_seed_and_rows_are_the_same_file(base, kind):
    assert make(wanted(kind), base, [ROWS]).data == make(wanted(kind), base, [ROWS]).data


def test_rows_of_several_files_count_alike_and_of_several_formats_are_refused(base):
    half = profiles.read(make(wanted("basis", rows=6), base, [ROWS, ROWS]).data)
    assert half.about["rows"] == 6
    with pytest.raises(ValueError, match="different formats"):
        make(wanted("basis"), base, [ROWS, b'{"prompt": "a", "completion": "b"}\n'])


def test_adapters_of_the_last_layers_have_profiles_of_their_own(base):
    made = profiles.read(make(wanted("basis", last=1), base, [ROWS]).data)
    assert [module.name for module in made.layout.modules] == [f"model.layers.1.self_attn.{name}" for name in TARGETS]
    with pytest.raises(ValueError, match="has 2 layers, not 3"):
        make(wanted("basis", last=3), base, [ROWS])
