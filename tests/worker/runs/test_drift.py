"""The number that says how far an adapter is from its base: on which tokens, from where on, of which text."""

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from db.contract.tokens.base_model import Base, open_base
from db.contract.tokens.encoding import last_occurrence
from tests.bases import tiny
from tests.worker.oracle.reference import Reference
from tests.worker.scoring.cases import linears, probe
from worker.engine.prompt_cache import PromptCache
from worker.oracle.torch_scorer import TorchScorer
from worker.runs import drift, drift_text
from worker.types import Layout

SHA = "8b7b4340c160bace8c69bea3d318531d2077333dd40767517cbc7eee8081c24d"


@pytest.fixture(scope="module", params=["opt", "llama", "qwen2"])
def base(request, tmp_path_factory) -> Base:
    return open_base("tiny", str(tiny(request.param, tmp_path_factory.getbasetemp())))


def text_ids(base: Base, text: str) -> list[int]:
    return base.tokenizer.encode(text, add_special_tokens=False).ids


def test_the_text_is_what_it_was():
    """A changed text makes figures that do not compare with those of before: docs/methods/drift.md says of which text
    they are."""
    assert hashlib.sha256("\n".join(drift_text.TEXTS).encode()).hexdigest() == SHA


def test_every_token_of_every_text_is_measured_once(base):
    found = tuple(drift._examples(base, ()))
    assert len(found) == len(drift_text.TEXTS)
    for example, text in zip(found, drift_text.TEXTS, strict=True):
        ids = (*base.prefix, *text_ids(base, text))
        (sequence,), (candidate,) = example.sequences, example.candidates
        assert (*sequence.tolist(), candidate.targets[-1]) == ids
        assert len(candidate.targets) == len(text_ids(base, text)) - (not base.prefix)  # what nothing precedes is not
        assert [ids[p + 1] for p in candidate.positions] == candidate.targets.tolist()
        assert (example.start, example.shared) == (0, 0)


def test_an_invocation_is_right_before_the_text_and_not_in_it_again(base):
    """PEFT starts at the last occurrence: what would be one is where the text ends."""
    rare = (260, 261, 262, 263)
    inside = tuple(text_ids(base, drift_text.TEXTS[0])[8:10])
    for invocation in (rare, inside, inside[:1]):
        for example, text in zip(drift._examples(base, invocation), drift_text.TEXTS, strict=True):
            (sequence,), (candidate,) = example.sequences, example.candidates
            assert example.start == len(base.prefix)
            assert last_occurrence(tuple(sequence.tolist()), invocation) == example.start
            first = len(base.prefix) + len(invocation)
            assert candidate.positions[0] == first - 1
            told = text_ids(base, text)[: len(candidate.targets)]
            assert candidate.targets.tolist() == told
            assert sequence[first:].tolist() == told[:-1]
    whole = [len(e.candidates[0].targets) for e in drift._examples(base, rare)]
    assert whole == [len(text_ids(base, text)) for text in drift_text.TEXTS]
    cut = [len(e.candidates[0].targets) for e in drift._examples(base, inside)]
    assert cut[0] < whole[0]


def test_a_text_that_a_model_cannot_hold_is_cut_and_one_that_it_has_no_tokens_for_is_left_out(base):
    short = replace(base, context=10)
    assert {len(e.sequences[0]) for e in drift._examples(short, ())} == {10}
    assert tuple(drift._examples(replace(base, vocab=5), ())) == ()
    layout = Layout(2, 4.0, ())
    assert drift.measured(None, replace(base, vocab=5), layout, np.zeros(0, np.float32), "a") is None


@pytest.mark.parametrize("invocation", [(), (260, 261)])
def test_it_is_the_mean_of_transformers_and_peft(base, invocation):
    modules = tuple(m for m in linears(base.path) if m.name.rsplit(".", 1)[-1] in ("q_proj", "v_proj"))
    layout = Layout(4, 8.0, modules, invocation)
    params = probe(np.random.default_rng(5), layout)
    plain, kept = TorchScorer(base.path), TorchScorer(base.path, kept=PromptCache(1 << 20))  # as workers open it
    found, *others = [drift.measured(scorer, base, layout, params, "a") for scorer in (plain, kept, kept)]
    plain.close()
    kept.close()
    assert others == [pytest.approx(found, abs=1e-6)] * 2
    worn = Reference(base.path, layout, params).model
    each = []
    for example in drift._examples(base, invocation):
        with torch.no_grad():
            ids = torch.tensor(example.sequences[0])[None]
            q = torch.log_softmax(worn(input_ids=ids).logits[0], -1)
            with worn.disable_adapter():
                p = torch.log_softmax(worn(input_ids=ids).logits[0], -1)
        each += (p.exp() * (p - q)).sum(-1)[example.candidates[0].positions].tolist()
    assert found == pytest.approx(math.fsum(each) / len(each), abs=1e-6)
    assert found > 0.01
