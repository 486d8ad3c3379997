"""Conversations: the text is transformers' own, and the scored tokens are the assistant's words and their end."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.contract.rows.formats import Chat, Message
from db.contract.tokens.base_model import Base
from db.contract.tokens.chat_template import text
from db.contract.tokens.encoding import TooLong, Unencodable, encode
from tests.bases import TEMPLATE
from tests.db.contract.conftest import fast_tokenizer

words = st.lists(st.sampled_from(["the film", " great", "\n", " ", "é", "<|end|>", "assistant", "a."]), max_size=5).map(
    "".join
)
turns = st.builds(Message, st.sampled_from(["system", "user"]), words, st.just(False))
answers = st.builds(Message, st.just("assistant"), words, st.booleans())
chats = (
    st.lists(turns | answers, min_size=1, max_size=6).filter(lambda t: any(m.scored for m in t)).map(tuple).map(Chat)
)

# As Zephyr, Llama 2 and ChatML write theirs: with an end token, with BOS and a space, without any end at all.
TEMPLATES = {
    "chatml": TEMPLATE,
    "bos": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]"
    "{% else %} {{ m['content'] | trim }} {{ eos_token }}{% endif %}{% endfor %}",
    "generation": "{%- for m in messages %}\n{% if m.role == 'assistant' %}\n{% generation %}{{ m.content }}"
    "{{ eos_token }}{% endgeneration %}\n{% else %}{{ m.content | tojson }}: {% endif %}{% endfor %}",
    "no end": "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
}


def _chat(*turns: tuple[str, str], unscored: tuple[int, ...] = ()) -> Chat:
    return Chat(tuple(Message(r, c, r == "assistant" and i not in unscored) for i, (r, c) in enumerate(turns)))


def _scored(base: Base, chat: Chat) -> list[str]:
    (_, _, targets) = encode(base, chat).candidates[0]
    return [base.tokenizer.decode([t], skip_special_tokens=False) for t in targets]


@given(chat=chats, template=st.sampled_from(sorted(TEMPLATES)))
def test_the_ids_are_transformers_own(llama: Base, chat: Chat, template: str):
    base = replace(llama, chat_template=TEMPLATES[template])
    tokenizer = fast_tokenizer(base.path)
    tokenizer.chat_template = TEMPLATES[template]
    last = max(i for i, m in enumerate(chat.messages) if m.scored)
    messages = [{"role": m.role, "content": m.content} for m in chat.messages[: last + 1]]
    assert text(base, chat) == tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    if template == "no end" and not any(m.scored and m.content.strip() for m in chat.messages):
        with pytest.raises(Unencodable, match="nothing to learn"):
            encode(base, chat)
        return
    found = encode(base, chat)
    _, positions, targets = found.candidates[0]
    assert found.sequences[0] == tuple(ids[: positions[-1] + 1])
    assert targets == tuple(ids[p + 1] for p in positions)


def test_scored_are_the_answers_and_their_end_tokens(llama: Base):
    chat = _chat(("system", "Sys"), ("user", "film?"), ("assistant", "great film"), ("user", "a"), ("assistant", "b\n"))
    assert "".join(_scored(llama, chat)) == "great film<|end|>b\n<|end|>"


def test_weight_0_leaves_a_turn_in_the_text_but_unscored(llama: Base):
    turns = (("user", "u"), ("assistant", "one"), ("user", "u"), ("assistant", "two"))
    found = encode(llama, _chat(*turns, unscored=(1,)))
    assert "".join(_scored(llama, _chat(*turns, unscored=(1,)))) == "two<|end|>"
    assert found.sequences == encode(llama, _chat(*turns)).sequences
    # What follows the last scored turn is not even forwarded.
    assert encode(llama, _chat(*turns, unscored=(3,))) == encode(llama, _chat(*turns[:2]))


def test_an_end_inside_the_words_does_not_end_the_turn(llama: Base):
    assert "".join(_scored(llama, _chat(("user", "u"), ("assistant", "a<|end|>b")))) == "a<|end|>b<|end|>"


def test_other_templates(llama: Base):
    turns = (("user", "film"), ("assistant", "great"), ("user", "a"), ("assistant", "b"))
    expected = {
        "chatml": "great<|end|>b<|end|>",
        "bos": " great </s> b </s>",
        "generation": " great</s> b</s>",  # one token with the space before it
        "no end": " great b",
    }
    for name, template in TEMPLATES.items():
        assert "".join(_scored(replace(llama, chat_template=template), _chat(*turns))) == expected[name], name


@pytest.mark.parametrize(
    "template, reason",
    [
        (None, "has no chat template: send prompt and completion"),
        ("{{ raise_exception('roles must alternate') }}", "refuses the messages: roles must alternate"),
        ("{{ messages[99].content.upper() }}", "refuses the messages"),
        ("{% for m in messages %}{{ m.content", "refuses the messages"),
        ("{{ messages.append(1) }}", "refuses the messages"),
        ("{{ strftime_now('%Y') }}", "strftime_now"),
        ("{{ ''.__class__.__mro__ }}", "refuses the messages"),
        ("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}", "rewrites the turns before"),
    ],
)
def test_a_template_that_cannot_tell_the_turns_is_refused(llama: Base, template: str | None, reason: str):
    with pytest.raises(Unencodable, match=reason) as caught:
        encode(replace(llama, chat_template=template), _chat(("user", "u"), ("assistant", "a")))
    assert caught.value.param == "messages"


def test_a_long_conversation_is_refused_before_its_turns_are_rendered(llama: Base):
    long = _chat(*(("user", "x" * 500), ("assistant", "y" * 500)) * 500)
    with pytest.raises(TooLong) as caught:
        encode(llama, long)
    assert caught.value.param == "messages"
    assert caught.value.tokens > 100_000


def test_an_empty_answer_teaches_its_end(llama: Base):
    assert _scored(llama, _chat(("user", "u"), ("assistant", ""))) == ["<|end|>"]
