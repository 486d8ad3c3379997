"""Which ids are forwarded and which are scored, against transformers' own tokenizer and chat templates."""

from dataclasses import replace
from itertools import takewhile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from db.contract.rows.formats import Choice, Completion
from db.contract.rows.jsonl import BadRow
from db.contract.tokens.base_model import Base
from db.contract.tokens.batches import CHUNK
from db.contract.tokens.encoding import Encoded, TooLong, Unencodable, encode, encode_rows
from tests.db.contract.conftest import fast_tokenizer
from worker.runs.data import Dataset, FileExamples, example, examples
from worker.types import Example

pieces = st.sampled_from(["the film", " great", " and", "\n", " ", " moving", ".", "é", " terrible", "x", "</s>"])
phrases = st.lists(pieces, max_size=6).map("".join)
filled = st.lists(pieces, min_size=1, max_size=4).map("".join)
options = st.lists(filled, min_size=2, max_size=5, unique=True).map(tuple)


def _mezo(base: Base, prompt: str, continuation: str) -> tuple[list[int], list[int]]:
    """(ids of the prompt, ids of the continuation) by the rule, written with transformers' tokenizer."""
    tokenizer = fast_tokenizer(base.path)
    head, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + continuation)["input_ids"]
    if whole[: len(head)] == head:
        return head, whole[len(head) :]
    return head, tokenizer(continuation, add_special_tokens=False)["input_ids"]


@given(prompt=phrases, choices=options)
def test_choices_are_scored_as_each_alone_would_be(tiny_bases, prompt: str, choices: tuple[str, ...]):
    for base in tiny_bases.values():
        expected = [_mezo(base, prompt, choice) for choice in choices]
        if not expected[0][0] or not all(tail for _, tail in expected):
            with pytest.raises(Unencodable):
                encode(base, Choice(prompt, choices, 0))
            continue
        found = encode(base, Choice(prompt, choices, len(choices) - 1))
        assert found.label == len(choices) - 1
        for (head, tail), (sequence, positions, targets) in zip(expected, found.candidates, strict=True):
            assert targets == tuple(tail)
            assert positions == tuple(range(len(head) - 1, len(head) + len(tail) - 1))
            # Causal: what a position sees is what it would see alone.
            assert found.sequences[sequence][: positions[-1] + 1] == tuple(head + tail)[:-1]
        inputs = {tuple(head + tail)[:-1] for head, tail in expected}
        assert set(found.sequences) == {i for i in inputs if not any(o != i and o[: len(i)] == i for o in inputs)}
        columns = zip(*found.sequences, strict=False)
        common = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
        assert (found.shared, found.start, found.prompt) == (common if len(found.sequences) > 1 else 0, 0, 0)
        assert found.tokens == common + sum(len(s) - common for s in found.sequences) == example(found).tokens


def test_one_token_choices_cost_their_prompt_once(llama: Base):
    head = llama.encode("the film was")
    found = encode(llama, Choice("the film was", ("!", "?", "."), 2))
    assert found.sequences == (tuple(head),)
    assert [c[1] for c in found.candidates] == [(len(head) - 1,)] * 3


def test_a_shared_sequence_scores_as_separate_ones(base: Base):
    model = AutoModelForCausalLM.from_pretrained(base.path).eval()
    found = encode(base, Choice("the film was", (" great", " great and moving", " terrible", " great and long"), 0))
    assert len(found.sequences) < len(found.candidates)
    for sequence, positions, targets in found.candidates:
        ids = [*found.sequences[sequence][: positions[0] + 1], *targets]
        with torch.inference_mode():
            shared = model(torch.tensor([found.sequences[sequence]])).logits[0].log_softmax(-1)
            alone = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        ours = [shared[p, t].item() for p, t in zip(positions, targets, strict=True)]
        theirs = [alone[p - 1, ids[p]].item() for p in range(len(ids) - len(targets), len(ids))]
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@given(prompt=phrases, completion=filled)
def test_completions_end_with_eos(tiny_bases, prompt: str, completion: str):
    for base in tiny_bases.values():
        head, tail = _mezo(base, prompt, completion)
        if not tail:
            with pytest.raises(Unencodable, match="no tokens of its own"):
                encode(base, Completion(prompt, completion))
            continue
        ids = [*head, *tail, fast_tokenizer(base.path).eos_token_id]
        first = max(len(head), 1)  # nothing predicts a first token
        found = encode(base, Completion(prompt, completion))
        assert found == Encoded((tuple(ids[:-1]),), ((0, tuple(range(first - 1, len(ids) - 1)), tuple(ids[first:])),))


def test_a_prompt_that_is_no_prefix_leaves_the_continuation_alone(llama: Base):
    # "gre" + "at" is one token or a different cut together, so the prompt's ids are not its beginning.
    head, alone = llama.encode("the film was gre"), llama.tokenizer.encode("at", add_special_tokens=False).ids
    assert llama.encode("the film was great")[: len(head)] != head
    _, positions, targets = encode(llama, Completion("the film was gre", "at")).candidates[0]
    assert targets == (*alone, llama.eos)
    assert positions[0] == len(head) - 1


def _fits(base: Base, tokens: int) -> Completion:
    """A completion row of exactly `tokens` tokens, BOS and EOS included."""
    return Completion("x", "x" * (tokens - len(base.encode("x")) - 1))


def test_the_context_holds_the_whole_row_and_not_one_token_more(base: Base):
    assert encode(base, _fits(base, base.context)).tokens == base.context - 1
    with pytest.raises(TooLong, match="257 tokens are more than the model's context of 256") as caught:
        encode(base, _fits(base, base.context + 1))
    assert (caught.value.tokens, caught.value.context, caught.value.param) == (257, 256, "prompt")
    with pytest.raises(TooLong):
        encode(base, Choice("x" * 2000, ("a", "b"), 0))


def test_a_token_without_an_embedding_is_refused(llama: Base):
    with pytest.raises(Unencodable, match="has no embedding: the model has 20"):
        encode(replace(llama, vocab=20), Completion("the film", " great"))


def test_rows_come_in_order_and_name_the_line_that_cannot_be(qwen2: Base):
    rows = [Completion(f"film {i}", " great") for i in range(2 * CHUNK + 5)]
    assert list(encode_rows(qwen2, rows)) == [encode(qwen2, row) for row in rows]
    line = CHUNK + 3
    rows[line - 1] = Completion("x" * 300, " great")
    rows[line] = Completion("x" * 4000, " great")
    got = []
    with pytest.raises(BadRow, match=f"Line {line}: 30. tokens are more than the model's context of 256") as caught:
        got.extend(encode_rows(qwen2, rows))
    assert (caught.value.line, caught.value.param) == (line, "prompt")


def test_examples_and_their_minibatches(base: Base):
    raw = b"".join(b'{"prompt": "%d", "choices": [" great", " good and long"], "label": 1}\n' % i for i in range(9))
    found = examples(base, raw)
    assert len(found) == 9
    assert found[0].label == 1
    assert all(a.dtype == np.int32 for e in found for a in (*e.sequences, e.candidates[0].positions))
    assert [e.tokens for e in examples(base, raw, rows=4)] == [e.tokens for e in found[:4]]
    assert examples(base, raw, rows=0) == ()
    batch = Dataset(found).minibatch(seed=3, step=1, batch=4)
    assert len({id(e) for e in batch}) == 4
    assert all(any(e is f for f in found) for e in batch)


def _same(one: Example, other: Example) -> bool:
    pairs = zip(one.candidates, other.candidates, strict=True)
    return (
        all(np.array_equal(a, b) for a, b in zip(one.sequences, other.sequences, strict=True))
        and all(a.sequence == b.sequence and np.array_equal(a.targets, b.targets) for a, b in pairs)
        and one.label == other.label
    )


def test_examples_made_when_asked_for_are_the_same(base: Base):
    raw = b"".join(b'{"prompt": "%d", "choices": [" great", " good"], "label": 1}\r\n' % i for i in range(9)) + b"\n \n"
    eager, lazy = examples(base, raw), FileExamples(base, raw)
    assert len(lazy) == len(eager) == 9
    assert lazy[3] is lazy[3] is lazy[-6]
    assert all(_same(a, b) for a, b in zip(eager, lazy, strict=True))
    assert all(_same(a, b) for a, b in zip(eager[2:4], lazy[2:4], strict=True))
    batches = (Dataset(rows).minibatch(3, 1, 4) for rows in (eager, lazy))
    assert all(_same(a, b) for a, b in zip(*batches, strict=True))
    with pytest.raises(IndexError):
        lazy[9]
    with pytest.raises(BadRow, match="more than the model's context"):
        FileExamples(base, raw.rstrip() + b'\n{"prompt": "%s", "choices": ["a", "b"], "label": 1}' % (b"x" * 300))[9]
