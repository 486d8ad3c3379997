"""Losses against their definitions and torch's cross-entropy."""

import math

import numpy as np
import pytest
import torch

from db.contract.objectives import OBJECTIVES
from worker import objectives
from worker.types import Candidate, Example, Trial


def example(lengths: list[int], label: int = 0, sequence: int = 7) -> Example:
    candidates = tuple(Candidate(0, np.arange(n, dtype=np.int32), np.zeros(n, np.int32)) for n in lengths)
    return Example((np.zeros(sequence, np.int32),), candidates, label)


def trial(objective: str, *examples: Example) -> Trial:
    return Trial(None, None, examples, objective)


def logprobs(*rows: list[list[float]]) -> list[list[np.ndarray]]:
    return [[np.array(c, np.float32) for c in row] for row in rows]


def test_every_objective_of_the_contract_has_its_share_and_hits_only_with_an_accuracy():
    assert objectives.SHARES.keys() == OBJECTIVES.keys()
    for name, record in OBJECTIVES.items():
        assert record.needs == "logprobs"  # all that scorers give today
        one, rows = trial(name, example([1, 1], label=0)), logprobs([[-0.1], [-3.0]])
        best = [[np.array([True]), np.array([False])]]
        assert bool(objectives.loss(one, rows, best).hits) == record.has_accuracy
        assert (objectives.loss(one, rows).hits is None) == (record.greedy or not record.has_accuracy)


def test_lm_sums_over_targets():
    loss = objectives.loss(
        trial("lm", example([2]), example([1, 3])), logprobs([[-1.0, -0.5]], [[-2.0], [-0.25, -0.25, -1.0]])
    )
    assert (loss.total, loss.count, loss.hits, loss.tokens) == (5.0, 6, None, 14)
    assert (loss.mean, loss.accuracy) == (5.0 / 6, None)


def test_lm_hits_the_likeliest_tokens_whose_log_probability_is_a_number():
    one, rows = trial("lm", example([2]), example([1, 3])), logprobs([[-1.0, -0.5]], [[-2.0], [-0.2, math.nan, -1.0]])
    best = [[np.array([True, False])], [np.array([True]), np.array([True, True, False])]]
    loss = objectives.loss(one, rows, best)
    assert (loss.hits, loss.accuracy) == (3, 0.5)
    assert objectives.loss(one, rows, [[~b for b in row] for row in best]).hits == 2


def test_choice_is_cross_entropy_of_mean_log_probabilities():
    rng = np.random.default_rng(0)
    labels, lengths = [0, 2, 1], [1, 2, 4]
    rows = [[(-rng.random(n) * 5).astype(np.float32) for n in lengths] for _ in labels]
    loss = objectives.loss(trial("choice", *(example(lengths, label) for label in labels)), rows)
    scores = torch.tensor([[float(c.astype(np.float64).mean()) for c in row] for row in rows], dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(scores, torch.tensor(labels), reduction="sum")
    assert loss.total == pytest.approx(float(expected), rel=1e-12)
    assert loss.hits == int((scores.argmax(1) == torch.tensor(labels)).sum())
    assert (loss.count, loss.tokens) == (3, 21)


def test_length_alone_gives_no_advantage():
    """The mean, not the sum: candidates of equal log-probability a token are tied, and the first is the answer."""
    loss = objectives.loss(trial("choice", example([1, 6], label=1)), logprobs([[-0.5], [-0.5] * 6]))
    assert loss.mean == pytest.approx(math.log(2))
    assert loss.hits == 0


@pytest.mark.parametrize("objective", ["lm", "choice"])
@pytest.mark.parametrize("bad", [[math.nan], [-math.inf], [math.inf], [math.inf, -math.inf]])
def test_what_is_not_finite_is_not_a_number_and_no_hit(objective, bad):
    rows = logprobs([[-1.0, -1.0], bad], [[-1.0, -1.0], [-9.0] * len(bad)])
    loss = objectives.loss(trial(objective, *(example([2, len(bad)]) for _ in range(2))), rows)
    assert math.isnan(loss.mean)
    assert loss.hits == (1 if objective == "choice" else None)


def test_very_unlikely_texts_do_not_overflow():
    loss = objectives.loss(trial("choice", example([1, 1], label=1)), logprobs([[-1.0], [-5000.0]]))
    assert loss.total == pytest.approx(4999.0)


def test_another_shape_or_objective_is_refused():
    one = trial("lm", example([2]))
    for rows in ([], [[[-1.0]]], [[[-1.0, -1.0], [-1.0]]]):
        with pytest.raises(ValueError, match=r"match|shorter"):
            objectives.loss(one, logprobs(*rows))
    with pytest.raises(ValueError, match="unknown objective"):
        objectives.loss(trial("f1", example([1])), logprobs([[-1.0]]))
