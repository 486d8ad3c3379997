"""The vLLM scorer against the oracle, on every architecture."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from db.contract.tokens.architectures import linears
from tests.worker.scoring.cases import CONTEXT, VOCAB, choice, crowd, layout, lm, probe, text
from tests.worker.scoring.conftest import Pair
from worker.engine.lora import SlotBank
from worker.scoring import engine_scorer
from worker.scoring.self_check import SelfCheckFailed, self_check
from worker.types import Candidate, Example, Layout, LogProbs, Module, Trial

TOKEN = 1e-5  # nats: fp32's tolerance for one log-probability


def flat(answers: list[LogProbs]) -> np.ndarray:
    return np.concatenate([c for trial in answers for example in trial for c in example])


def test_every_token_equals_the_oracle(pair: Pair) -> None:
    """Mixed ranks, modules, alphas, base model and choice trials; more adapters than slots; a trial beyond a wave."""
    trials = crowd(np.random.default_rng(1), pair.modules)
    mine, theirs = flat(pair.vllm.logprobs(trials)), flat(pair.oracle.logprobs(trials))
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=TOKEN)
    bare = flat(pair.oracle.logprobs([Trial(None, None, t.examples, t.objective) for t in trials]))
    assert np.abs(bare - theirs).max() > 0.1, "the adapters must matter for this test to say anything"


def test_losses_come_in_order_and_equal_the_oracles(pair: Pair) -> None:
    trials = crowd(np.random.default_rng(2), pair.modules)
    mine, theirs = pair.vllm.score(trials), pair.oracle.score(trials)
    for a, b in zip(mine, theirs, strict=True):
        assert (a.count, a.hits, a.tokens) == (b.count, b.hits, b.tokens)
        assert a.total == pytest.approx(b.total, abs=TOKEN * max(a.count, 3))
    assert [a.total for a in pair.vllm.score(trials[::-1])] == pytest.approx([a.total for a in mine[::-1]], abs=1e-4)


def likely(pair: Pair, trial: Trial, rng: np.random.Generator) -> Trial:
    """The trial, asking, with half of its targets replaced by what transformers and PEFT find likeliest there."""

    def told(example: Example) -> Example:
        seen: list[torch.Tensor] = []  # logits at the one candidate's positions, in their order
        with heard(pair, lambda _module, _args, logits: seen.append(logits)):
            pair.oracle.logprobs([replace(trial, examples=(example,))])
        (one,), (logits,) = example.candidates, seen
        first = logits.argmax(-1).numpy().astype(np.int32)
        return replace(example, candidates=(replace(one, targets=np.where(rng.random(len(first)) < 0.5, first, 7)),))

    return replace(trial, examples=tuple(told(example) for example in trial.examples), greedy=True)


@contextmanager
def heard(pair: Pair, hook: Callable[..., torch.Tensor | None]) -> Iterator[None]:
    """A hook on what the oracle's model says last."""
    handle = pair.oracle._passes._wardrobe.model.get_output_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def test_hits_are_the_oracles_and_asking_changes_no_bit_of_a_loss(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(12)
    shape, small = layout(pair.modules, 8, 4.0), layout(pair.modules, 2, 16.0, "q_proj", "v_proj")
    plain = [lm(rng, s, None if s is None else probe(rng, s), rows) for s, rows in ((shape, 9), (None, 3), (small, 4))]
    asking = [likely(pair, trial, rng) for trial in plain]
    silent = [replace(trial, greedy=False) for trial in asking]
    mine, theirs, unasked = pair.vllm.score(asking), pair.oracle.score(asking), pair.vllm.score(silent)
    assert [x.hits for x in mine] == [x.hits for x in theirs]
    assert all(0 < (x.hits or 0) < x.count for x in mine), "some hit and some miss, or this says nothing"
    assert [x.total for x in mine] == [x.total for x in unasked]
    assert [x.total for x in theirs] == [x.total for x in pair.oracle.score(silent)]
    assert [x.accuracy for x in unasked] == [None] * 3
    mixed = pair.vllm.score([silent[0], asking[1], silent[2], asking[0]])
    assert [x.hits for x in mixed] == [None, mine[1].hits, None, mine[0].hits]
    monkeypatch.setattr(engine_scorer, "LOGITS", 5 * pair.vllm.engine.vocab)  # five rows at a time
    assert [x.hits for x in pair.vllm.score(asking)] == [x.hits for x in mine]


def test_of_equally_likely_tokens_the_first_is_the_hit(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.array([3, 4, 5], np.int32)
    one = Example((ids,), (Candidate(0, np.arange(3, dtype=np.int32), np.array([2, 6, 2], np.int32)),))
    logits = torch.zeros(3, pair.vllm.engine.vocab)
    logits[:, 2] = logits[:, 6] = 1.0
    logits[2, 0] = torch.nan
    monkeypatch.setattr(pair.vllm.engine, "logits", lambda *_: logits.clone())
    with heard(pair, lambda *_: logits.clone()):
        for scorer in (pair.vllm, pair.oracle):
            (loss,) = scorer.score([Trial(None, None, (one,), "lm", greedy=True)])
            assert loss.hits == 1


def test_a_trial_does_not_depend_on_its_company(pair: Pair) -> None:
    trials = crowd(np.random.default_rng(3), pair.modules)
    together = pair.vllm.logprobs(trials)
    for trial, answer in zip(trials, together, strict=True):
        np.testing.assert_allclose(flat(pair.vllm.logprobs([trial])), flat([answer]), rtol=0, atol=TOKEN)


def test_a_rewritten_slot_is_never_stale(pair: Pair) -> None:
    """The same array changed in place, other layouts in between, and back again: the same answer to the bit."""
    rng = np.random.default_rng(4)
    shape = layout(pair.modules, 8, 16.0)
    narrow = layout(pair.modules, 2, 8.0, "q_proj")
    first, second = probe(rng, shape), probe(rng, shape)
    examples = (text(rng, 30), choice(rng, 12))
    shared = first.copy()

    def ask(params: np.ndarray) -> np.ndarray:
        return flat(pair.vllm.logprobs([Trial(shape, params, examples, "lm")]))

    one = ask(shared)
    shared[:] = second
    two = ask(shared)
    between = Trial(narrow, probe(rng, narrow), examples, "lm")
    np.testing.assert_allclose(
        flat(pair.vllm.logprobs([between])), flat(pair.oracle.logprobs([between])), rtol=0, atol=TOKEN
    )
    assert np.abs(one - two).max() > 0.1
    np.testing.assert_array_equal(ask(second), two)
    np.testing.assert_array_equal(ask(first), one)


def test_the_difference_of_two_probes_keeps_its_signal(pair: Pair) -> None:
    """L+ - L- at eps 1e-3 equals the oracle's in float64-summed losses to a thousandth of its typical size."""
    rng = np.random.default_rng(5)
    shape = layout(pair.modules, 8, 16.0, "q_proj", "v_proj")
    centre = probe(rng, shape)
    examples = tuple(text(rng, 30) for _ in range(16))
    trials = []
    for _ in range(6):
        z = rng.standard_normal(shape.size).astype(np.float32)
        trials += [Trial(shape, centre + np.float32(s * 1e-3) * z, examples, "lm") for s in (1, -1)]
    mine, theirs = pair.vllm.score(trials), pair.oracle.score(trials)
    a = np.array([p.mean - m.mean for p, m in zip(mine[::2], mine[1::2], strict=True)])
    b = np.array([p.mean - m.mean for p, m in zip(theirs[::2], theirs[1::2], strict=True)])
    assert np.abs(a - b).max() < 1e-3 * np.sqrt(np.mean(b**2))


def test_a_sequence_as_long_as_the_context(pair: Pair) -> None:
    """Longer than a wave's tokens: it has a forward pass to itself, between ordinary trials."""
    rng = np.random.default_rng(6)
    shape = layout(pair.modules, 2, 16.0)
    long = Trial(shape, probe(rng, shape), (text(rng, 5), text(rng, CONTEXT), text(rng, 7)), "lm")
    trials = [lm(rng, shape, probe(rng, shape)), long, lm(rng, None, None)]
    np.testing.assert_allclose(flat(pair.vllm.logprobs(trials)), flat(pair.oracle.logprobs(trials)), rtol=0, atol=TOKEN)


def test_losses_that_are_not_finite_are_returned_and_stay_alone(pair: Pair) -> None:
    rng = np.random.default_rng(7)
    shape = layout(pair.modules, 8, 16.0)
    good = [lm(rng, shape, probe(rng, shape)), lm(rng, None, None)]
    alone = [x.total for x in pair.vllm.score(good)]
    bad = lm(rng, shape, np.full(shape.size, np.nan, np.float32))
    huge = lm(rng, shape, np.full(shape.size, 1e30, np.float32))
    answers = pair.vllm.score([good[0], bad, good[1], huge])
    assert not np.isfinite(answers[1].total)
    assert not np.isfinite(answers[3].total)
    assert [answers[0].total, answers[2].total] == pytest.approx(alone, abs=1e-4)
    assert [x.total for x in pair.vllm.score(good)] == alone, "nothing of it may stay in slots or caches"


def test_what_the_model_cannot_take_is_refused(pair: Pair) -> None:
    rng = np.random.default_rng(8)
    wide = layout(pair.modules, 16, 16.0)
    shape = layout(pair.modules, 2, 16.0)
    params = probe(rng, shape)
    astray = Example((np.zeros(4, np.int32),), (Candidate(0, np.array([4], np.int32), np.zeros(1, np.int32)),))
    for trial, why in [
        (lm(rng, wide, probe(rng, wide)), "rank 16"),
        (lm(rng, shape, params[:-1]), "layout"),
        (Trial(shape, params, (text(rng, CONTEXT + 1),), "lm"), "257 tokens"),
        (Trial(None, None, (Example((np.array([VOCAB + 99], np.int32),), ()),), "lm"), "vocabulary"),
        (Trial(None, None, (astray,), "lm"), "position"),
    ]:
        with pytest.raises(ValueError, match=why):
            pair.vllm.score([trial])
    for name, scorers in (("lm_head", [pair.vllm]), ("model.nowhere", [pair.vllm, pair.oracle])):
        beyond = Layout(2, 1.0, (Module(name, 64, 512),))
        for scorer in scorers:
            with pytest.raises(ValueError, match=name):
                scorer.score([lm(rng, beyond, probe(rng, beyond))])


def test_self_check_passes_and_notices_a_wrong_weight(pair: Pair) -> None:
    report = self_check(pair.vllm)
    assert report["max_difference"] < TOKEN
    assert report["dtype"] == "float32"
    assert str(report["vllm"]).startswith("0.")
    weight = next(p for n, p in pair.vllm.engine._runner.model.named_parameters() if "norm" in n)
    kept = weight.data.clone()
    weight.data += 0.01
    try:
        with pytest.raises(SelfCheckFailed, match="nats"):
            self_check(pair.vllm)
    finally:
        weight.data.copy_(kept)


def test_an_adapter_may_act_on_the_linears_that_the_contract_says(pair: Pair) -> None:
    config = json.loads((pair.path / "config.json").read_text())
    assert pair.vllm.engine.modules == {name: (inputs, outputs) for name, inputs, outputs in linears(config)}


def test_norms_and_activations_call_the_compiled_kernels(pair: Pair) -> None:
    """Two norms and one activation a layer and the last norm, on a CPU; OPT's are PyTorch's own."""
    model = pair.vllm.engine._runner.model
    ours = [m for m in model.modules() if "_rms_norm" in str(vars(m).get("_forward_method"))]
    gates = [m for m in model.modules() if "_silu_and_mul" in str(vars(m).get("_forward_method"))]
    assert (len(ours), len(gates)) == ((0, 0) if "opt" in pair.path.name else (5, 2))


def test_wide_adapters_have_fewer_slots_and_the_same_losses(pair: Pair) -> None:
    rng = np.random.default_rng(9)
    wide, narrow = layout(pair.modules, 8, 16.0), layout(pair.modules, 1, 1.0, "q_proj")
    bank = SlotBank(64, torch.float32, torch.device("cpu"), limit=8 * wide.size)
    assert bank.fit(narrow.size) == 64
    assert bank.fit(wide.size) == 2
    assert bank.fit(narrow.size) == 64
    assert bank.fit(100 * wide.size) == 1
    trials = [lm(rng, shape, probe(rng, shape)) for shape in (wide, narrow, wide, narrow)]
    expected = flat(pair.oracle.logprobs(trials))
    kept = pair.vllm._bank
    pair.vllm._bank = SlotBank(kept.slots, torch.float32, torch.device("cpu"), limit=8 * wide.size)
    try:
        np.testing.assert_allclose(flat(pair.vllm.logprobs(trials)), expected, rtol=0, atol=TOKEN)
        again = [trials[1], trials[3]]  # narrow ones alone: more slots in the same memory
        np.testing.assert_allclose(
            flat(pair.vllm.logprobs(again)), flat(pair.oracle.logprobs(again)), rtol=0, atol=TOKEN
        )
    finally:
        pair.vllm._bank = kept
