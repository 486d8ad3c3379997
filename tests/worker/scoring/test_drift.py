"""How far a probe is from the base, by the engine and by the oracle, against transformers and PEFT in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.worker.oracle.reference import Reference
from tests.worker.scoring.cases import ANSWERABLE, activated, answer, crowd, layout, probe, text
from tests.worker.scoring.conftest import Pair
from tests.worker.scoring.test_answer import shapes
from tests.worker.scoring.test_depth import upper
from tests.worker.scoring.test_engine_scorer import flat
from tests.worker.scoring.test_pauses import requests, scored_among
from worker.scoring import engine_scorer
from worker.types import Example, Layout, Trial

__all__ = ["requests"]  # a fixture
EACH = 1e-5  # nats: float32's tolerance for the divergence at one token, where those here are up to a nat


def asked(rng: np.random.Generator, shape: Layout) -> Trial:
    rows = tuple(answer(rng, n, t) for n, t in ((40, 5), (0, 7), (3, 1))) if shape.invocation else ()
    return Trial(shape, probe(rng, shape), rows or (text(rng, 30), text(rng, 7, scored=2)), "lm", "me", drift=True)


def cases(pair: Pair, rng: np.random.Generator) -> dict[str, Trial]:
    """On every module, from an invocation on, on the last layer, and both."""
    attention = ANSWERABLE.get(pair.path.name.split("-")[1], ())
    found = {
        "all": layout(pair.modules, 8, 4.0),
        "answer": shapes(pair)[0],
        "last": upper(pair),
        "last, answer": activated(upper(pair, *attention)),
    }
    return {name: asked(rng, shape) for name, shape in found.items()}


def divergences(pair: Pair, trial: Trial) -> np.ndarray:
    """KL(base || probe) at each target of the trial, one sequence at a time, in float64."""
    assert trial.layout is not None
    assert trial.params is not None
    worn = Reference(pair.path, trial.layout, trial.params).model
    found = []
    for example in trial.examples:
        (sequence,), (candidate,) = example.sequences, example.candidates
        ids = torch.tensor(sequence)[None]
        with torch.no_grad():
            q = torch.log_softmax(worn(input_ids=ids).logits[0], -1)
            with worn.disable_adapter():
                p = torch.log_softmax(worn(input_ids=ids).logits[0], -1)
        found.append((p.exp() * (p - q)).sum(-1).numpy()[candidate.positions])
    return np.concatenate(found)


@pytest.mark.parametrize("name", ["all", "answer", "last", "last, answer"])
def test_every_token_and_the_mean_are_transformers_and_pefts(pair: Pair, name: str) -> None:
    trial = cases(pair, np.random.default_rng(91))[name]
    wanted = divergences(pair, trial)
    assert wanted.max() > 0.01, "the adapter must matter for this test to say anything"
    for scorer in (pair.vllm, pair.oracle):
        for _ in range(2):  # cold and warm
            np.testing.assert_allclose(-flat(scorer.logprobs([trial])), wanted, rtol=0, atol=EACH)
        (loss,) = scorer.score([trial])
        assert (loss.count, loss.tokens, loss.hits) == (len(wanted), trial.tokens, None)
        assert loss.mean == pytest.approx(wanted.mean(), abs=EACH)


def test_it_is_of_two_passes_and_the_price_of_both(pair: Pair) -> None:
    trial = cases(pair, np.random.default_rng(92))["all"]
    assert trial.tokens == 2 * replace(trial, drift=False).tokens


def test_what_says_what_the_base_says_is_not_away_from_it(pair: Pair) -> None:
    rng = np.random.default_rng(93)
    trial = cases(pair, rng)["all"]
    assert trial.params is not None
    still = replace(trial, params=np.zeros_like(trial.params))
    bare = replace(trial, layout=None, params=None)
    for scorer in (pair.vllm, pair.oracle):
        assert np.abs([loss.mean for loss in scorer.score([still, bare])]).max() < 1e-9


def test_it_goes_with_the_square_of_a_small_update(pair: Pair) -> None:
    """A distribution is nearest to itself: a direction or a sign that is wrong would not fall so."""
    trial = cases(pair, np.random.default_rng(94))["all"]
    assert trial.layout is not None
    assert trial.params is not None
    found = []
    for part in (1e-2, 1e-3):
        params = trial.params.copy()
        for _, _, b in trial.layout.pairs(params):
            b *= np.float32(part)
        found.append(pair.vllm.score([replace(trial, params=params)])[0].mean)
    assert found[0] / found[1] == pytest.approx(100, rel=0.05)


def test_company_changes_neither_it_nor_them(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among losses that others ask for, on the same examples too, and a few logits at a time."""
    rng = np.random.default_rng(95)
    mine = cases(pair, rng)
    others = [*crowd(rng, pair.modules)[:4], *(replace(t, drift=False) for t in mine.values())]
    alone, apart = pair.vllm.score(list(mine.values())), pair.vllm.score(others)
    monkeypatch.setattr(engine_scorer, "LOGITS", 24 * pair.vllm.engine.vocab)
    mixed = pair.vllm.score([x for both in zip(others, mine.values(), strict=False) for x in both] + others[4:])
    assert [x.mean for x in mixed[1:8:2]] == pytest.approx([x.mean for x in alone], abs=EACH)
    assert [x.mean for x in [*mixed[0:8:2], *mixed[8:]]] == pytest.approx([x.mean for x in apart], abs=EACH)


def test_it_pauses_for_what_is_served_and_keeps_every_bit(pair: Pair, requests) -> None:
    trials = 3 * list(cases(pair, np.random.default_rng(96)).values())
    still = pair.vllm.score(trials)
    assert scored_among(pair, trials, requests) == still


def test_what_is_not_finite_is_told_as_such(pair: Pair) -> None:
    rng = np.random.default_rng(97)
    trial = asked(rng, layout(pair.modules, 2, 4.0, "q_proj", "v_proj"))
    assert trial.params is not None
    broken = replace(trial, params=np.full_like(trial.params, np.inf))
    for scorer in (pair.vllm, pair.oracle):
        assert np.isnan(scorer.score([broken])[0].mean)


def test_only_targets_that_are_read_are_counted(pair: Pair) -> None:
    """An example's targets say where it is measured, not what: any token there gives the same."""
    trial = cases(pair, np.random.default_rng(98))["all"]

    def other(example: Example) -> Example:
        (one,) = example.candidates
        return replace(example, candidates=(replace(one, targets=(one.targets + 1) % 500),))

    again = replace(trial, examples=tuple(map(other, trial.examples)))
    assert pair.vllm.score([trial]) == pair.vllm.score([again])
