"""Runs of the methods that need derivatives, on tiny models: against PEFT and torch, and from their journals."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from db.contract import journal_row, methods
from db.contract.pricing import Counts, price
from db.contract.spec import AdapterSpec, JobSpec
from db.contract.tokens.base_model import open_base
from tests.bases import tiny
from tests.worker.oracle.reference import Reference
from tests.worker.scoring.cases import INVOCATION, answer
from worker.engine.prompt_cache import PromptCache
from worker.oracle.torch_scorer import TorchScorer
from worker.runs import cohort
from worker.runs.data import Dataset
from worker.runs.replay import Point, replay
from worker.runs.run import Run, start

STEPS = 4


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def begun(path: Path, objective: str, method: dict, steps: int = STEPS) -> Run:
    """Six rows, two a step, of activation `answer`."""
    rng = np.random.default_rng(6)
    tails = (1, 1) if objective == "choice" else (4,)
    rows = tuple(answer(rng, prompt, *tails) for prompt in (3, 9, 14, 20, 8, 30))
    targets = ("q_proj", "v_proj")
    adapter = AdapterSpec(rank=2, alpha=4.0, targets=targets, activation="answer", invocation=INVOCATION)
    spec = JobSpec(
        model="tiny", objective=objective, adapter=adapter, method=methods.settings(**method), training_file="file-a",
        steps=steps, batch_size=2, eval_every=1, seed=1,
    )  # fmt: skip
    return start("ftjob-a", spec, open_base("tiny", str(path)), Dataset(rows), "me")


def walked(run: Run, scorer: TorchScorer) -> tuple[list[Run], list[cohort.StepResult]]:
    """The run before its first step and after each, and what they gave."""
    runs, results = [run], []
    while not runs[-1].done:
        ((after, result),) = cohort.step([runs[-1]], scorer)
        runs.append(after)
        results.append(result)
    return runs, results


@pytest.mark.parametrize("arch, objective", [("opt", "lm"), ("llama", "choice"), ("qwen2", "lm")])
def test_first_order_is_peft_and_torchs_adamw_on_the_same_rows(arch, objective, tmp_path_factory):
    path = tiny(arch, tmp_path_factory.getbasetemp())
    about = {"name": "first_order", "learning_rate": 5e-3, "weight_decay": 0.1, "clip": 1.0, "schedule": "linear"}
    runs, results = walked(begun(path, objective, about), TorchScorer(path, kept=PromptCache(1 << 24)))
    reference = Reference(path, runs[0].layout, runs[0].params)
    optimizer = torch.optim.AdamW(reference.tensors, lr=5e-3, weight_decay=0.1)
    for run, after, result in zip(runs, runs[1:], results, strict=False):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - run.step / STEPS)
        optimizer.zero_grad()
        loss = reference.loss(run.minibatch(), objective)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reference.tensors, 1.0)
        optimizer.step()
        assert journal_row.losses(result.losses, "first_order") == [pytest.approx(loss.item(), abs=1e-4)]
        np.testing.assert_allclose(after.params, reference.params, rtol=0, atol=1e-4)
    assert np.abs(runs[-1].params - runs[0].params).max() > 5e-3


@pytest.mark.parametrize("about", [
    {"name": "first_order", "learning_rate": 1e-3},
    {"name": "forward_grad", "learning_rate": 1e-3, "queries": 2},
    {"name": "hybrid", "learning_rate": 1e-3, "zo_learning_rate": 1e-3, "eps": 1e-2, "top_layers": 1, "queries": 2},
])  # fmt: skip
def test_what_a_run_is_charged_is_its_price(about, tmp_path_factory):
    path = tiny("llama", tmp_path_factory.getbasetemp())
    runs, results = walked(begun(path, "lm", about), TorchScorer(path, kept=PromptCache(1 << 24)))
    rows = runs[0].data.train
    counts = Counts([e.tokens for e in rows], [e.start for e in rows])
    assert sum(result.tokens for result in results) == price(runs[0].spec, counts, Counts()).training


def test_forward_gradients_replay_to_the_bit_from_losses_and_slopes(tmp_path_factory):
    path = tiny("llama", tmp_path_factory.getbasetemp())
    about = {"name": "forward_grad", "learning_rate": 1e-2, "queries": 2, "optimizer": "adam"}
    runs, results = walked(begun(path, "lm", about), TorchScorer(path, kept=PromptCache(1 << 24)))
    journal = [result.losses for result in results]
    assert {len(row) for row in journal} == {4}
    again = replay(runs[0].method, journal)
    assert again.params.tobytes() == runs[-1].params.tobytes()
    for run, row in zip(runs, journal, strict=False):
        loss, gradient = Reference(path, run.layout, run.params).gradient(run.minibatch(), "lm")
        assert journal_row.losses(row, run.spec.method.name) == pytest.approx([loss, loss], abs=1e-4)
        for query, slope in enumerate(row[1::2]):
            v = run.method.direction(run.params, run.state, query).astype(float)
            assert abs(slope - gradient @ v) < 1e-5 * np.linalg.norm(gradient) * np.linalg.norm(v)


def test_the_hybrids_top_moves_as_full_backpropagation_moves_it(tmp_path_factory):
    path = tiny("qwen2", tmp_path_factory.getbasetemp())
    about = {"name": "hybrid", "learning_rate": 5e-3, "zo_learning_rate": 1e-3, "eps": 1e-2, "top_layers": 1}
    runs, results = walked(begun(path, "choice", about, 1), TorchScorer(path, kept=PromptCache(1 << 24)))
    layout = runs[0].layout
    cut = layout.offsets[4]  # A and B of q and v in the lower of two layers
    loss, gradient = Reference(path, layout, runs[0].params).gradient(runs[0].minibatch(), "choice")
    assert results[0].losses[0] == pytest.approx(loss, abs=1e-5)
    moved = (runs[1].params - runs[0].params)[cut:]  # Adam's first step: the rate, against the gradient's sign
    large = np.abs(gradient[cut:]) > 1e-4
    np.testing.assert_allclose(moved[large], -5e-3 * np.sign(gradient[cut:][large]), rtol=1e-2)
    assert large.sum() > 100
    assert np.abs(runs[1].params - runs[0].params)[:cut].max() > 0


def test_a_method_on_gradients_goes_on_from_a_point(tmp_path_factory):
    """The same bits from a point in the middle, with the torch scorer's own arithmetic on the same machine."""
    path = tiny("llama", tmp_path_factory.getbasetemp())
    about = {"name": "first_order", "learning_rate": 5e-3}
    scorer = TorchScorer(path, kept=PromptCache(1 << 24))
    runs, results = walked(begun(path, "lm", about), scorer)
    assert all(math.isfinite(x) for result in results for x in result.losses)
    assert all(one.params.tobytes() != other.params.tobytes() for one, other in pairwise(runs))
    middle = begun(path, "lm", about).at(Point(runs[2].params, runs[2].state))
    again, _ = walked(middle, scorer)
    assert again[-1].params.tobytes() == runs[-1].params.tobytes()
