"""What an invocation means: the prompts' common end, or the tokens that spell a text in them."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.contract.refusal import Refusal
from db.contract.rows.formats import Chat, Choice, Completion, Message, Row
from db.contract.spec import AdapterSpec
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import decoded, encode
from db.contract.tokens.invocation import LONGEST, MOST, Tail, common, joined, prompt, shared, spelled
from tests.db.contract.tokens.test_activation import OPENING, TALK, chat, ids
from tests.db.contract.tokens.test_chat_template import TEMPLATES


def refused(found: object, reason: str) -> None:
    assert isinstance(found, Refusal)
    assert (found.field, found.code) == ("onward.invocation", "no_invocation")
    assert re.search(reason, found.message), found.message


def tail(base: Base, *rows: Row) -> Tail:
    found = None
    for line, row in enumerate(rows, start=1):
        found = joined(found, base, encode(base, row), line)
    assert found is not None
    return found


def means(base: Base, row: Row, text: str) -> tuple[int, ...]:
    return spelled(base, row, encode(base, row), text)


few = st.lists(st.integers(0, 2), max_size=6).map(tuple)


@given(one=few, other=few)
def test_common_is_the_longest_end_of_both(one, other):
    found = common(one, other)
    assert one[len(one) - len(found) :] == other[len(other) - len(found) :] == found
    longer = len(found) + 1
    assert longer > min(len(one), len(other)) or one[-longer:] != other[-longer:]


def test_auto_is_the_longest_common_end_of_all_prompts_up_to_four_tokens(base: Base):
    rows = [Choice(f"{text}.\nRating:", (" good", " bad"), 0) for text in ("great", "long", "boring")]
    expected = ids(base, "great.\nRating:")[-MOST:]
    assert len(ids(base, ".\nRating:")) > MOST
    assert tail(base, *rows) == Tail(expected)
    assert shared(base, [("training file", tail(base, *rows))]) == expected
    assert all(encode(base, row, expected).start == len(base.encode(row.prompt)) - MOST for row in rows)
    short = Choice("great:", (" good", " bad"), 0)
    assert tail(base, *rows, short).ids == ids(base, ":")


def test_the_tokenizers_prefix_is_no_part_of_an_invocation(base: Base):
    rows = [Completion("x:", " good")] * 2
    assert tail(base, *rows).ids == ids(base, "x:")
    assert prompt(base, encode(base, rows[0])) == ids(base, "x:")


def test_a_conversations_prompt_ends_with_the_opening_of_its_last_turn(base: Base):
    assert prompt(base, encode(base, chat(*TALK)))[-MOST:] == ids(base, "\n" + OPENING)[-MOST:]
    one, other = chat(*TALK[:2]), chat(("user", "x", False), ("assistant", "film", True))
    found = tail(base, one, other, chat(*TALK)).ids
    assert found == ids(base, OPENING)[-MOST:]
    assert encode(base, chat(*TALK), found).start > encode(base, chat(*TALK[:2]), found).start


def test_prompts_without_a_common_end_say_which_line(llama: Base):
    rows = [Completion("great film:", " x"), Completion("long film:", " x"), Completion("film?", " x")]
    found = tail(llama, *rows, Completion("more.", " x"))
    assert (found.ids, found.line, found.before) == ((), 3, ids(llama, " film:"))
    refused(
        shared(llama, [("training file", found)]),
        r"line 3 of the training file ends in 'film\?', those before in ' film:'",
    )
    refused(
        shared(llama, [("training file", tail(llama, Completion("", "x")))]), "line 1 of the training file ends in ''"
    )


def test_both_files_must_have_it(llama: Base):
    train, valid = tail(llama, Completion("great film:", " x")), tail(llama, Completion("a moving film:", " x"))
    assert shared(llama, [("training file", train), ("validation file", valid)]) == ids(llama, " film:")
    other = tail(llama, Completion("film?", " x"))
    refused(
        shared(llama, [("training file", train), ("validation file", other)]),
        r"those of the validation file end in 'film\?', those before in",
    )


def test_a_text_is_the_tokens_that_spell_it_where_the_prompt_has_it_last(base: Base):
    row = Completion("Rating? the film was great.\nRating:", " good")
    assert means(base, row, "Rating:") == ids(base, "Rating:")
    assert means(base, row, "\nRating:") == ids(base, "great.\nRating:")[-len(means(base, row, "\nRating:")) :]
    assert means(base, row, " great") == ids(base, " great")
    assert encode(base, row, means(base, row, " great")).start == base.encode(row.prompt).index(ids(base, " great")[0])


@given(st.data())
def test_every_cut_at_token_borders_is_found(tiny_bases, data):
    text = data.draw(st.lists(st.sampled_from(["the film", "é", "\n", " great", "日", "x:"]), min_size=1).map("".join))
    for base in tiny_bases.values():
        row, encoding = Completion(text, " good"), base.tokenizer.encode(text)
        start, end = (data.draw(st.sampled_from(encoding.offsets))[side] for side in (0, 1))
        if start < end and text.rfind(text[start:end], 0) == start:
            found = means(base, row, text[start:end])
            assert decoded(base, found) == text[start:end]
            assert encode(base, row, found).start + len(found) <= len(base.encode(text))


def test_a_text_whose_letters_are_within_other_tokens_is_met_with_those(llama: Base):
    row = Completion("the film was great", " x")
    assert ids(llama, "great") != ids(llama, " great")
    refused(means(llama, row, "great"), "'great' begins or ends within a token of line 1's prompt: send ' great'")
    # Its own tokens serve where the prompt has them somewhere before.
    assert means(llama, Completion("great: the film was great", " x"), "great") == ids(llama, "great")


def test_a_text_that_is_not_in_the_prompt_says_what_is(llama: Base):
    for row in (Completion("the film:", " Answer"), chat(*TALK)):
        refused(means(llama, row, "Answer"), "'Answer' is not in line 1's prompt, which ends in")
    refused(means(llama, chat(*TALK), "long"), "'long' is not in line 1's prompt")  # but in its answer
    refused(means(replace(llama, prefix=()), Completion("", " x"), "x"), "not in line 1's prompt")


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_a_conversations_opening_can_be_named(llama: Base, template: str):
    base = replace(llama, chat_template=TEMPLATES[template])
    text = {"chatml": OPENING, "bos": "[/INST]", "generation": ":", "no end": "assistant:"}[template]
    row = Chat((Message("user", "film?", False), Message("assistant", "great", True)))
    found = means(base, row, text)
    assert decoded(base, found) == text
    assert encode(base, row, found).start > 0


def test_as_many_tokens_as_a_spec_holds(base: Base):
    longest = "é\n" * LONGEST
    row = Completion("x" + longest, " good")
    for end in range(1, len(longest)):
        text = longest[-end:]
        if len(ids(base, text)) <= LONGEST:
            found = means(base, row, text)
            assert AdapterSpec(rank=1, alpha=1, targets=("x",), activation="answer", invocation=found)
    refused(means(base, row, longest), f"at most {LONGEST}")
