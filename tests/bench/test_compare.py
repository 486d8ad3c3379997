"""Every kind of workload is measured from end to end, with the oracle in the engine's place and a tiny base model."""

import json
from dataclasses import replace

import pytest
import torch

from bench import workloads
from bench.report import table
from bench.report.measure import Floor, Timed
from bench.sections import compare
from bench.workloads import CACHED, ENGINE, OFFICIAL, STRONG, Workload
from db.contract.tokens.base_model import open_base
from tests.bases import tiny
from worker.oracle.torch_scorer import TorchScorer

TEXTS = ("the film was great", "it was terrible and boring", "no heart", "a great and moving story about a town")
TINY = Workload("tiny", model="tiny", batch=2, rank=4, rounds=2)
KINDS = (
    replace(TINY, name="mezo"),
    replace(TINY, name="lozo", method="lozo"),
    replace(TINY, name="lm", objective="lm"),
    replace(TINY, name="jobs", jobs=3, batch=1, who=(STRONG, ENGINE)),
    replace(TINY, name="answer", activation="answer", who=(OFFICIAL, STRONG, CACHED, ENGINE)),
)


def rows(_texts, objective):
    if objective == "lm":
        found = [{"prompt": "Review:", "completion": " " + text} for text in TEXTS]
    else:
        found = [
            {"prompt": f"Review: {text}\nRating:", "choices": [" bad", " good"], "label": i % 2}
            for i, text in enumerate(TEXTS)
        ]
    return "".join(json.dumps(row) + "\n" for row in found).encode()


@pytest.fixture(scope="module")
def resident(tmp_path_factory):
    path = tiny("llama", tmp_path_factory.mktemp("models"))
    found = compare.Resident(open_base("tiny", str(path)))
    found._scorer = Timed(TorchScorer(path))
    found.__dict__["loaded"] = compare.load(str(path), compiled=False)
    return found


class Known(Floor):
    """A machine whose rates are not measured."""

    def __init__(self):
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.rate = self.bandwidth = 1e11

    def gemm(self, seconds):
        assert seconds > 0


@pytest.mark.parametrize("w", KINDS, ids=lambda w: w.name)
def test_a_workload_is_measured(w, resident, monkeypatch):
    monkeypatch.setattr(workloads, "_rows", rows)
    found = compare.measure(w, resident, Known(), w.rounds)
    assert set(found["contenders"]) == set(w.who)
    for name, c in found["contenders"].items():
        assert c["seconds a step"]["n"] == w.rounds
        assert c["seconds a step"]["median"] > 0
        assert ("prompt tokens" in c) == (w.activation == "answer" and name in (CACHED, ENGINE))
    assert found["contenders"][ENGINE]["times onward's step"]["median"] == 1.0
    printed = "\n".join(table.rows({"compare": {w.name: found}}))
    assert all(name in printed for name in w.who)


def test_contenders_that_do_other_work_are_found_out():
    with pytest.raises(AssertionError, match="same work"):
        compare.agreed({"a": [0.7, 0.7], "b": [0.7, 0.71]})
    assert compare.agreed({"a": [0.7], "b": [0.7, 0.9], "c": [0.7, 0.9]}) == 0.0


def test_workloads_have_names_of_their_own_and_always_onward():
    assert len({w.name for w in workloads.WORKLOADS}) == len(workloads.WORKLOADS)
    assert all(ENGINE in w.who for w in workloads.WORKLOADS)
    assert all(w.jobs == 1 for w in workloads.WORKLOADS if OFFICIAL in w.who)
