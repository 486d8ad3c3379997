"""What a trial's neighbours do to its loss: no more than the last bits of float32, and malice nothing beyond that.

How much it is on a real model, and in other precisions, is measured by bench/studies/company.py.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.worker.scoring.cases import CONTEXT, activated, answer, choice, layout, probe, text, tokens
from tests.worker.scoring.conftest import Pair
from tests.worker.scoring.test_answer import shapes
from tests.worker.scoring.test_engine_scorer import TOKEN, flat
from worker.types import Candidate, Example, Layout, Trial


def mine(pair: Pair, rng: np.random.Generator) -> list[Trial]:
    """What one tenant has scored: texts and choices under one adapter, and an activated one."""
    large, _ = shapes(pair)
    everywhere = layout(pair.modules, 8, 16.0)
    return [
        Trial(everywhere, probe(rng, everywhere), tuple(text(rng, n, 4) for n in (9, 30, 17)), "lm", "me"),
        Trial(everywhere, probe(rng, everywhere), tuple(choice(rng, n) for n in (5, 21)), "choice", "me"),
        Trial(large, probe(rng, large), (answer(rng, 12, 1, 1), answer(rng, 40, 3, 2)), "choice", "me"),
    ]


def neighbours(pair: Pair, rng: np.random.Generator, count: int) -> list[Trial]:
    """Trials of others: ranks 1 to 8, some modules and all, activated and not, from one token to the context."""
    large, small = shapes(pair)
    single = layout(pair.modules, 1, 1.0, "k_proj", "up_proj", "fc1")
    everything = layout(pair.modules, 8, 4.0)
    made = []
    for n in range(count):
        length = int(rng.integers(1, 60)) if n % 8 else CONTEXT
        shape: Layout | None = (single, everything, large, small, None)[n % 5]
        examples = (text(rng, length, 1), text(rng, 7))
        if shape is not None and shape.invocation:
            examples = (answer(rng, min(length, 100), 1, 1), answer(rng, 3, 2, 4))
        params = None if shape is None else probe(rng, shape)
        made.append(Trial(shape, params, examples, "lm", f"other-{n}"))
    return made


def off(pair: Pair, trials: Sequence[Trial], company: Sequence[Trial]) -> float:
    """The largest change of a log-probability, nats, where `company` is scored in the same batch: some before, some
    after."""
    alone = flat(pair.vllm.logprobs(trials))
    half = len(company) // 2
    among = pair.vllm.logprobs([*company[:half], *trials, *company[half:]])[half : half + len(trials)]
    found = flat(among)
    assert np.isfinite(found).all()
    return float(np.abs(found - alone).max())


@pytest.mark.parametrize("count", [1, 31])
def test_neighbours_move_no_more_than_the_last_bits(pair: Pair, count: int) -> None:
    rng = np.random.default_rng(41)
    assert off(pair, mine(pair, rng), neighbours(pair, rng, count)) <= TOKEN


def wild(pair: Pair, rng: np.random.Generator, kind: str) -> list[Trial]:
    """Trials of somebody who means ill, or has a learning rate that is too high."""
    everything = layout(pair.modules, 8, 16.0)
    size, rows = everything.size, (text(rng, 20, 5), text(rng, 3))
    large, _ = shapes(pair)
    match kind:
        case "norm":
            grown = [np.float32(x) * probe(rng, everything) for x in (1e4, 1e15, 1e30)]
            return [Trial(everything, params.astype(np.float32), rows, "lm", "ill") for params in grown]
        case "alpha":
            shape = replace(everything, alpha=1e30)
            return [Trial(shape, probe(rng, everything) * np.float32(1e8), rows, "lm", "ill")]
        case "nan":
            broken = probe(rng, everything)
            broken[:: max(1, size // 100)] = np.nan
            infinite = np.full(size, np.inf, np.float32)
            return [Trial(everything, p, rows, "lm", "ill") for p in (broken, infinite, -infinite)]
        case "answer":
            params = np.full(large.size, np.nan, np.float32)
            return [Trial(large, params, (answer(rng, 12, 1, 1), answer(rng, 90, 3, 2)), "choice", "ill")]
        case "context":
            return [Trial(everything, probe(rng, everything), (text(rng, CONTEXT, 1),) * 3, "lm", "ill")]
        case "empty":
            nothing = Example((tokens(rng, 9),), ())
            unscored = Example((tokens(rng, 9),), (Candidate(0, np.zeros(0, np.int32), np.zeros(0, np.int32)),))
            params = probe(rng, everything)
            return [Trial(everything, params, e, "lm", "ill") for e in ((nothing,), (unscored, *rows), ())]
        case _:
            many = answer(rng, 30, *([2] * 1000))
            return [Trial(activated(large), probe(rng, large), (many,), "choice", "ill")]


KINDS = ("norm", "alpha", "nan", "answer", "context", "empty", "thousand")


@pytest.mark.parametrize("kind", KINDS)
def test_malice_reaches_its_own_losses_alone(pair: Pair, kind: str) -> None:
    """In its batch, in the batch after it, and in slots and prompts it has had."""
    rng = np.random.default_rng(42)
    trials = mine(pair, rng)
    before = flat(pair.vllm.logprobs(trials))
    assert off(pair, trials, wild(pair, rng, kind)) <= TOKEN
    np.testing.assert_array_equal(flat(pair.vllm.logprobs(trials)), before, "nothing of it stays in slots or caches")


def test_losses_of_malice_are_returned_and_not_raised(pair: Pair) -> None:
    rng = np.random.default_rng(43)
    for kind in ("norm", "nan", "answer"):
        trials = wild(pair, rng, kind)
        losses = pair.vllm.score(trials)
        assert len(losses) == len(trials)
        assert not np.isfinite(losses[-1].total), kind
    (many,) = wild(pair, rng, "thousand")
    (loss,) = pair.vllm.score([many])
    assert np.isfinite(loss.total)
    assert 0 <= loss.hits <= loss.count == 1
