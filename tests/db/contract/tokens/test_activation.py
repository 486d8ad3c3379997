"""Where an adapter of activation `answer` begins to act: PEFT's rule, and what a row must be for it."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.tuners.lora.variants import calculate_alora_offsets

from db.contract.rows.formats import Chat, Choice, Completion, Message
from db.contract.rows.jsonl import BadRow
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import Encoded, Unencodable, encode, encode_rows, last_occurrence

MARK = "<|start|>"  # one token of every tiny base, wherever it stands
pieces = st.sampled_from(["the film", " great", "\n", " ", MARK, MARK + "it", "é", "</s>"])
phrases = st.lists(pieces, max_size=6).map("".join)
answers = st.lists(st.sampled_from([" great", " terrible", "x", MARK, " and"]), min_size=1, max_size=4).map("".join)
choices = st.lists(answers, min_size=2, max_size=4, unique=True).map(tuple)
marks = st.sampled_from([MARK, MARK + "it", " great" + MARK])


def ids(base: Base, text: str) -> tuple[int, ...]:
    return tuple(base.tokenizer.encode(text, add_special_tokens=False).ids)


def peft_start(sequence: tuple[int, ...], invocation: tuple[int, ...]) -> int | None:
    """Where PEFT's aLoRA begins to act on a sequence."""
    config = {"a": SimpleNamespace(alora_invocation_tokens=list(invocation))}
    (offset,) = calculate_alora_offsets(config, "a", torch.tensor([sequence]))
    return None if offset is None else len(sequence) - offset


@given(prompt=phrases, choices=choices, mark=marks)
def test_choices_start_where_peft_starts_or_are_refused(tiny_bases, prompt: str, choices: tuple[str, ...], mark: str):
    for base in tiny_bases.values():
        row, invocation = Choice(prompt, choices, 0), ids(base, mark)
        head = len(base.encode(prompt))
        if not head:
            continue
        plain = encode(base, row)
        inputs = [plain.sequences[s][: p[-1] + 1] for s, p, _ in plain.candidates]
        alone = {peft_start(each, invocation) for each in inputs}
        good = len(alone) == 1 and None not in alone and max(alone) + len(invocation) <= head
        if not good:
            with pytest.raises(Unencodable):
                encode(base, row, invocation)
            continue
        found = encode(base, row, invocation)
        assert {found.start} == alone == {peft_start(s, invocation) for s in found.sequences}
        assert (found.sequences, found.candidates, found.shared) == (plain.sequences, plain.candidates, plain.shared)
        assert len(found.sequences) == 1 or found.shared >= found.start + len(invocation)
        assert found.prompt == found.start
        assert found.tokens == plain.tokens - found.start


@given(prompt=phrases, completion=answers, mark=marks)
def test_completions_start_where_peft_starts_or_are_refused(tiny_bases, prompt: str, completion: str, mark: str):
    for base in tiny_bases.values():
        row, invocation = Completion(prompt, completion), ids(base, mark)
        plain = encode(base, row)
        (sequence,), (_, positions, _) = plain.sequences, plain.candidates[0]
        start = peft_start(sequence, invocation)
        if start is None or start + len(invocation) > positions[0] + 1:
            with pytest.raises(Unencodable):
                encode(base, row, invocation)
        else:
            assert encode(base, row, invocation) == Encoded(plain.sequences, plain.candidates, start=start)


def test_no_invocation_is_activation_all(base: Base):
    row = Choice("the film was:", (" great", " terrible and long"), 0)
    assert encode(base, row, ()) == encode(base, row)
    assert encode(base, row).start == 0


def test_the_last_of_two_occurrences_counts(base: Base):
    found = encode(base, Completion(f"{MARK}great film{MARK}", " great"), ids(base, MARK))
    assert found.start == len(base.encode(f"{MARK}great film"))


def test_the_prefix_is_part_of_what_is_searched(tiny_bases):
    opt = tiny_bases["opt"]  # it begins every text with </s>
    assert opt.prefix == ids(opt, "</s>")
    assert encode(opt, Completion("great", " film"), opt.prefix).start == 0
    with pytest.raises(Unencodable, match="not in the prompt"):
        encode(tiny_bases["qwen2"], Completion("great", " film"), ids(tiny_bases["qwen2"], "</s>"))


@pytest.mark.parametrize(
    "row, reason, param",
    [
        (Completion("great", " film"), "'<|start|>' is not in the prompt", "prompt"),
        (Choice("great", (" film", " x"), 0), "'<|start|>' is not in the prompt", "prompt"),
        (Completion(f"great{MARK}", f" film{MARK} x"), "occurs again inside the answer", "completion"),
        (Completion(f"great{MARK}", f" film{MARK}"), "occurs again inside the answer", "completion"),
        (Completion("great", f" film{MARK} x"), "in the answer only", "completion"),
        (Choice(f"great{MARK}", (" film", f" x{MARK} film"), 0), "occurs again inside the answer", "choices[1]"),
        (Choice(f"great{MARK}", (f" x{MARK} film", " film"), 0), "occurs again inside the answer", "choices[0]"),
        (Choice("great", (" film", f" x{MARK}x"), 0), "not in the prompt", "prompt"),
    ],
)
def test_a_row_that_cannot_start_says_why(base: Base, row, reason: str, param: str):
    with pytest.raises(Unencodable, match=reason.replace("|", r"\|")) as caught:
        encode(base, row, ids(base, MARK))
    assert caught.value.param == param


def test_a_last_token_that_is_never_forwarded_does_not_count(base: Base):
    # The mark ends a choice: it is predicted, and nothing is computed from it.
    found = encode(base, Choice(f"great{MARK}", (" film", f" x{MARK}"), 0), ids(base, MARK))
    assert found.start == len(base.encode("great"))


def test_an_invocation_across_the_border_of_prompt_and_answer_is_refused(base: Base):
    across = (*ids(base, MARK), *ids(base, " film"))
    with pytest.raises(Unencodable, match="answer only") as caught:
        encode(base, Completion(f"great{MARK}", " film x"), across)
    assert caught.value.param == "completion"


def chat(*turns: tuple[str, str, bool]) -> Chat:
    return Chat(tuple(Message(*turn) for turn in turns))


OPENING = "<|start|>assistant\n"  # of the tiny bases' template
TALK = (("user", "film?", False), ("assistant", "great", True), ("user", "and?", False), ("assistant", "long", True))


def test_of_a_conversation_the_turn_after_the_last_invocation_is_learned(base: Base):
    plain, found = encode(base, chat(*TALK)), encode(base, chat(*TALK), ids(base, OPENING))
    last = encode(base, chat(*TALK[:1], ("assistant", "great", False), *TALK[2:]))
    assert found.candidates == last.candidates != plain.candidates
    assert found.sequences == plain.sequences
    assert found.start == peft_start(found.sequences[0], ids(base, OPENING))
    assert found.start + len(ids(base, OPENING)) == found.candidates[0][1][0] + 1


def test_turns_after_an_early_invocation_are_all_learned(base: Base):
    only = chat(("system", MARK + "x", False), *TALK)
    invocation = ids(base, MARK + "x")
    assert encode(base, only, invocation).candidates == encode(base, only).candidates


def test_turns_with_nothing_between_them_are_told_apart_by_their_openings(base: Base):
    both = chat(("user", "film?", False), ("assistant", "great", True), ("assistant", "long", True))
    found = encode(base, both, ids(base, OPENING))
    text = base.tokenizer.decode(list(found.candidates[0][2]), skip_special_tokens=False)
    assert text == "long<|end|>"


@pytest.mark.parametrize("said", ["great film", "great film and film", "film"])
def test_an_answer_that_says_the_invocation_is_refused(base: Base, said: str):
    row = chat(("user", "the film", False), ("assistant", said, True))
    invocation = ids(base, "film" if said == "film" else " film")
    with pytest.raises(Unencodable, match="answer") as caught:
        encode(base, row, invocation)
    assert caught.value.param == "messages"


def test_a_file_names_the_line_that_cannot_start(base: Base):
    rows = [Completion(f"great{MARK}", " film")] * 600
    rows[550] = Completion("great", " film")
    got = []
    with pytest.raises(BadRow, match="Line 551: the invocation") as caught:
        got.extend(encode_rows(base, rows, ids(base, MARK)))
    assert (len(got), caught.value.param) == (550, "prompt")
    assert got[549] == encode(base, rows[0], ids(base, MARK))


def test_last_occurrence():
    assert last_occurrence((1, 2, 1, 2, 1), (1, 2)) == 2
    assert last_occurrence((1, 1, 1), (1, 1)) == 1
    assert last_occurrence((1,), (1, 1)) is None
    assert last_occurrence((), (1,)) is None
