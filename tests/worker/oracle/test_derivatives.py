"""Derivatives against PEFT's own layers on whole sequences, one at a time, with the objectives written out in torch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests.bases import tiny
from tests.quantised import quantised
from tests.worker.scoring.cases import ANSWERABLE, activated, answer, layout, linears, probe, text
from worker.engine.prompt_cache import PromptCache
from worker.oracle.torch_scorer import TorchScorer
from worker.types import Example, Layout, Params, Trial

ARCHITECTURES = ("opt", "llama", "qwen2")
each = pytest.mark.parametrize("arch", ARCHITECTURES)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Reference:
    """A fresh PEFT model, float64, and the mean loss of a trial as transformers and torch alone have it."""

    def __init__(self, path: Path, shape: Layout, params: Params) -> None:
        base = AutoModelForCausalLM.from_pretrained(path).double()
        config = LoraConfig(
            r=shape.rank, lora_alpha=shape.alpha, target_modules=[m.name for m in shape.modules], lora_dropout=0.0,
            task_type="CAUSAL_LM", alora_invocation_tokens=list(shape.invocation) or None,
        )  # fmt: skip
        self.model = get_peft_model(base, config, autocast_adapter_dtype=False)
        inner = self.model.base_model.model
        self.tensors = []
        for module, a, b in shape.pairs(params):
            layer = inner.get_submodule(module.name)
            for half, values in ((layer.lora_A, a), (layer.lora_B, b)):
                half["default"].weight.data = torch.from_numpy(values.copy()).double()
                self.tensors.append(half["default"].weight)

    def loss(self, examples: tuple[Example, ...], objective: str) -> torch.Tensor:
        terms = []
        for example in examples:
            answers = [self.model(input_ids=torch.tensor(s)[None]).logits[0] for s in example.sequences]
            logs = [torch.log_softmax(x, -1) for x in answers]
            read = [logs[c.sequence][c.positions, c.targets] for c in example.candidates]
            if objective == "lm":
                terms += [-x for row in read for x in row]
            else:
                scores = torch.stack([row.mean() for row in read])
                terms.append(torch.nn.functional.cross_entropy(scores[None], torch.tensor([example.label])))
        return torch.stack(terms).mean()

    def gradient(self, examples: tuple[Example, ...], objective: str) -> tuple[float, np.ndarray]:
        loss = self.loss(examples, objective)
        found = torch.autograd.grad(loss, self.tensors)
        return loss.item(), torch.cat([x.flatten() for x in found]).numpy()


def trial(path: Path, arch: str, objective: str, *, answers: bool, seed: int = 3) -> Trial:
    """Five rows of different lengths; of activation `answer` one of them begins with its invocation."""
    rng = np.random.default_rng(seed)
    shape = layout(linears(path), 2, 4.0, *ANSWERABLE.get(arch, ("q_proj", "v_proj", "down_proj")))
    tails = (1,) * 2 if objective == "choice" else (5,)
    prompts = (0, 4, 11, 11, 30) if answers else (3, 4, 11, 13, 30)
    examples = [answer(rng, prompt, *tails) for prompt in prompts]
    if objective == "choice":
        examples[1:3] = [answer(rng, 7, 1, 3), answer(rng, 9, 2, 2, 4)]
    if answers:
        return Trial(activated(shape), probe(rng, shape), tuple(examples), objective, "me", gradient=True)
    plain = tuple(replace(e, start=0) for e in examples)
    return Trial(shape, probe(rng, shape), plain, objective, "me", gradient=True)


@each
@pytest.mark.parametrize("objective", ["lm", "choice"])
@pytest.mark.parametrize("answers", [False, True])
def test_gradient_is_that_of_peft_on_whole_sequences(arch, objective, answers, tmp_path_factory):
    path = tiny(arch, tmp_path_factory.getbasetemp())
    asked = trial(path, arch, objective, answers=answers)
    loss, gradient = Reference(path, asked.layout, asked.params).gradient(asked.examples, objective)
    cache = PromptCache(1 << 24)
    for scorer in (TorchScorer(path), TorchScorer(path, batch=2, kept=cache), TorchScorer(path, kept=cache)):
        for _ in range(2):  # the second time from kept prompts
            (found,) = scorer.score([asked])
            assert found.mean == pytest.approx(loss, abs=1e-5)
            assert found.gradient.dtype == np.float32
            np.testing.assert_allclose(found.gradient, gradient, rtol=0, atol=1e-4 * np.abs(gradient).max())
    assert cache.stored == (4 if answers else 0)  # each row has a prompt of its own, and one has none


@each
def test_probes_and_evaluations_continue_the_same_prompts(arch, tmp_path_factory):
    path = tiny(arch, tmp_path_factory.getbasetemp())
    asked = replace(trial(path, arch, "choice", answers=True), gradient=False, greedy=True)
    base = replace(asked, params=None, greedy=False)
    cache = PromptCache(1 << 24)
    kept = TorchScorer(path, kept=cache)
    for a, b in zip(kept.score([asked, base, asked]), TorchScorer(path).score([asked, base, asked]), strict=True):
        assert a.mean == pytest.approx(b.mean, abs=1e-5)
        assert (a.hits, a.count, a.tokens) == (b.hits, b.count, b.tokens)
    assert (cache.missed, cache.found) == (4, 8)


@each
def test_slope_is_the_gradients_product_with_the_tangent(arch, tmp_path_factory):
    path = tiny(arch, tmp_path_factory.getbasetemp())
    for answers in (False, True):
        asked = trial(path, arch, "choice", answers=answers)
        tangent = np.random.default_rng(8).standard_normal(asked.layout.size).astype(np.float32)
        for scorer in (TorchScorer(path), TorchScorer(path, kept=PromptCache(1 << 24))):
            back, both = scorer.score([asked, replace(asked, tangent=tangent)])
            (found,) = scorer.score([replace(asked, tangent=tangent, gradient=False)])
            expected = float(back.gradient.astype(float) @ tangent.astype(float))
            norms = float(np.linalg.norm(back.gradient) * np.linalg.norm(tangent))
            assert abs(found.slope - expected) < 1e-5 * norms
            assert both.slope == pytest.approx(expected, rel=1e-6)
            assert found.gradient is None
            assert found.mean == pytest.approx(back.mean, abs=1e-5)


def test_a_trial_with_derivatives_costs_the_passes_they_take(tmp_path_factory):
    path = tiny("llama", tmp_path_factory.getbasetemp())
    asked = trial(path, "llama", "lm", answers=True)
    visit = sum(e.tokens for e in asked.examples)
    tangent = np.ones(asked.layout.size, np.float32)
    trials = [replace(asked, gradient=False), replace(asked, gradient=False, tangent=tangent), asked]
    assert [t.tokens for t in trials] == [visit, 2 * visit, 3 * visit]
    assert [x.tokens for x in TorchScorer(path).score(trials)] == [visit, 2 * visit, 3 * visit]


@each
def test_a_part_of_the_gradient_is_that_part_and_goes_no_further_down(arch, tmp_path_factory):
    path = tiny(arch, tmp_path_factory.getbasetemp())
    asked = trial(path, arch, "lm", answers=True)
    since = len(asked.layout.shapes) // 2  # the second of two layers
    scorer = TorchScorer(path, kept=PromptCache(1 << 24))
    whole, part = scorer.score([asked, replace(asked, since=since)])
    top = asked.layout.offsets[since]
    assert not part.gradient[:top].any()
    assert part.gradient[top:].any()
    np.testing.assert_array_equal(part.gradient[top:], whole.gradient[top:])
    model = scorer._passes._wardrobe.model.base_model.model
    below = model.get_submodule(asked.layout.modules[0].name)
    assert not any(p.requires_grad for p in below.parameters())


def test_bare_models_and_infinite_parameters_have_answers_too(tmp_path_factory):
    path = tiny("llama", tmp_path_factory.getbasetemp())
    asked = trial(path, "llama", "choice", answers=True)
    wild = replace(asked, params=np.full_like(asked.params, np.nan))
    (found,) = TorchScorer(path).score([wild])
    assert np.isnan(found.mean)
    assert np.isnan(found.gradient).any()


def test_a_quantised_base_has_none(tmp_path, tmp_path_factory):
    path = tiny("llama", tmp_path_factory.getbasetemp(), tied=False)
    asked = trial(path, "llama", "lm", answers=False)
    folder, _ = quantised(path, "w8a8", tmp_path)
    with pytest.raises(ValueError, match="a quantised base has no derivatives"):
        TorchScorer(folder).score([asked])


def test_long_rows_are_differentiated_a_part_at_a_time(tmp_path_factory, monkeypatch):
    path = tiny("llama", tmp_path_factory.getbasetemp())
    rng = np.random.default_rng(4)
    shape = layout(linears(path), 2, 4.0, "q_proj")
    asked = Trial(shape, probe(rng, shape), tuple(text(rng, n) for n in (30, 40, 10, 20)), "lm", gradient=True)
    (whole,) = TorchScorer(path).score([asked])
    monkeypatch.setattr("worker.oracle.torch_scorer.DIFFERENTIATED", 64)
    (parted,) = TorchScorer(path).score([asked])
    np.testing.assert_allclose(parted.gradient, whole.gradient, rtol=0, atol=1e-6 * np.abs(whole.gradient).max())
