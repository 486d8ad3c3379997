"""Divergence of a real, small model: what users have seen pass as success is seen."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from db.contract import methods
from db.contract.spec import AdapterSpec, JobSpec
from db.contract.tokens.base_model import open_base
from tests.bases import tiny
from worker.oracle.torch_scorer import TorchScorer
from worker.runs import cohort
from worker.runs.data import Dataset
from worker.runs.run import start
from worker.types import Candidate, Example


def texts(path: Path, count: int) -> tuple[Example, ...]:
    """Texts that the model knows how to go on: its own, for its weights are random and know no others."""
    model = AutoModelForCausalLM.from_pretrained(path)
    begun = torch.from_numpy(np.random.default_rng(1).integers(3, model.config.vocab_size, (count, 4)))
    with torch.inference_mode():
        whole = model.generate(begun, max_new_tokens=8, min_new_tokens=8, do_sample=False).numpy().astype(np.int32)
    at = np.arange(3, 11, dtype=np.int32)
    return tuple(Example((ids,), (Candidate(0, at, ids[4:12]),)) for ids in whole)


@pytest.mark.parametrize(
    "method, diverges",
    [
        ({"learning_rate": 10.0, "eps": 1.0}, True),
        ({"learning_rate": 0.5, "eps": 0.1, "optimizer": "adam"}, True),
        ({"learning_rate": 1e-4, "eps": 1e-2}, False),
    ],
)
def test_a_rate_too_high_is_seen_and_a_small_one_left_alone(method, diverges, tmp_path_factory):
    path = tiny("llama", tmp_path_factory.getbasetemp())
    base, scorer = open_base("tiny", str(path)), TorchScorer(path)
    spec = JobSpec(
        model="tiny",
        objective="lm",
        adapter=AdapterSpec(rank=4, alpha=8.0, targets=("q_proj", "v_proj")),
        method=methods.settings(name="mezo", **method),
        training_file="file-a",
        validation_file="file-b",
        steps=8,
        batch_size=4,
        eval_every=3,
        eval_rows=24,
        seed=1,
        on_divergence="stop",
    )
    known = texts(path, 40)
    run, heard = start("ftjob-a", spec, base, Dataset(known[:16], known[16:])), []
    while not run.done:
        ((run, result),) = cohort.step([run], scorer)
        heard += [result.evaluation] if result.evaluation else []
    assert (run.stopped == "diverged") == diverges, [(e.step, e.loss, e.noise) for e in heard]
    assert (run.step < 8) == diverges
