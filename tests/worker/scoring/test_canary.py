"""The canary sees what company does to a loss, and tenants' losses do not see the canary."""

import numpy as np
import pytest

from db.contract.tokens.base_model import open_base
from tests.bases import tiny
from worker.forwards import at_once
from worker.oracle.torch_scorer import TorchScorer
from worker.scoring.canary import Canary, trial
from worker.types import EngineOff, Loss, Module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("canary"))


@pytest.fixture(scope="module")
def canary_trial(folder):
    base = open_base("tiny", str(folder))
    return trial(tuple(Module(*m) for m in base.modules), base.context, base.vocab)


@pytest.fixture(scope="module")
def oracle(folder):
    scorer = TorchScorer(str(folder))
    yield scorer
    scorer.close()


class Crowded:
    """A scorer whose losses grow with the company."""

    capacity = 64

    def __init__(self, oracle, by):
        self.oracle, self.by, self.calls = oracle, by, []

    def score(self, trials):
        self.calls.append(len(trials))
        shift = self.by * (len(trials) - 1)
        return [Loss(x.total + shift * x.count, x.count, x.hits, x.tokens) for x in self.oracle.score(trials)]

    def start(self, trials):
        return at_once(self.score, trials)

    def close(self):
        pass


def test_the_oracle_has_no_noise_and_the_canary_is_scored_once_in_a_while(oracle, canary_trial):
    seen = []
    canary = Canary(oracle, canary_trial, 3600.0, seen.append)
    alone = oracle.score([canary_trial] * 2)
    assert canary.score([]) == []
    assert seen == []
    assert canary.score([canary_trial] * 2) == alone
    assert canary.score([canary_trial] * 2) == alone
    assert seen == [0.0]


def test_what_company_does_is_seen(oracle, canary_trial):
    crowded, seen = Crowded(oracle, 1e-3), []
    canary = Canary(crowded, canary_trial, 1e-9, seen.append)
    losses = canary.score([canary_trial] * 3)
    assert len(losses) == 3
    assert crowded.calls == [1, 4]
    assert seen == [pytest.approx(3e-3)]
    assert canary.capacity == 64


def test_a_loss_that_is_not_finite_is_above_any_limit(oracle, canary_trial):
    crowded, seen = Crowded(oracle, 0.0), []
    canary = Canary(crowded, canary_trial, 1e-9, seen.append)
    crowded.by = float("nan")
    canary.score([canary_trial])
    assert seen == [float("inf")]


def test_the_trial_is_the_same_at_every_start_and_fills_every_module(folder, canary_trial):
    base = open_base("tiny", str(folder))
    again = trial(tuple(Module(*m) for m in base.modules), base.context, base.vocab)
    assert np.array_equal(again.params, canary_trial.params)
    assert [m.name for m in again.layout.modules] == [name for name, _, _ in base.modules]


def test_off_its_limit_no_loss_of_the_batch_is_returned(oracle, canary_trial):
    crowded, seen = Crowded(oracle, 1e-3), []
    canary = Canary(crowded, canary_trial, 0.0, seen.append, limit=1.5e-3)
    assert len(canary.score([canary_trial])) == 1, "with one other it is off by 1e-3: within"
    with pytest.raises(EngineOff, match=r"off by 0\.002 nats"):
        canary.score([canary_trial] * 2)
    assert seen == pytest.approx([1e-3, 2e-3])


def test_what_is_not_a_number_is_off(oracle, canary_trial):
    crowded = Crowded(oracle, 0.0)
    canary = Canary(crowded, canary_trial, 0.0, lambda _: None, limit=1.0)
    assert canary.sound()
    crowded.by = float("nan")
    with pytest.raises(EngineOff):
        canary.score([canary_trial])


def test_an_engine_is_sound_where_the_canary_alone_is_what_it_was(oracle, canary_trial):
    class Worn:
        capacity = 64
        how = 0.0

        def score(self, trials):
            if self.how is None:
                raise RuntimeError("illegal memory access")
            return [Loss(x.total + self.how * x.count, x.count, x.hits, x.tokens) for x in oracle.score(trials)]

    worn = Worn()
    canary = Canary(worn, canary_trial, 3600.0, lambda _: None, limit=1e-4)
    assert canary.sound()
    for worn.how in (1e-3, float("nan"), float("inf"), None):
        assert not canary.sound()
