"""What many texts begin with is tokenised once, and not one token is another for it: on tokenizers of every kind."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE, Unigram, WordPiece

from db.contract.rows.formats import Choice, Completion
from db.contract.tokens import batches, joints
from db.contract.tokens.base_model import Base, open_base
from db.contract.tokens.encoding import Unencodable, encode
from tests.bases import CORPUS, SPECIALS

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
LLAMA3, QWEN2, GPT2 = (pre_tokenizers.Split(Regex(words), "isolated") for words in joints.WORDS)
KNOWN = {
    "gpt2": (None, pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "gpt2, prefix space": (None, pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "smollm2": (None, pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])),
    "llama3": (None, pre_tokenizers.Sequence([LLAMA3, BYTES])),
    "qwen2": (normalizers.NFC(), pre_tokenizers.Sequence([QWEN2, BYTES])),
    "decomposed": (normalizers.NFD(), pre_tokenizers.Sequence([GPT2, BYTES])),
}
# As sentencepiece writes Llama 2's; words that reach over spaces; a normalizer that drops characters.
UNKNOWN = {
    "llama2": (normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None),
    "metaspace": (None, pre_tokenizers.Metaspace()),
    "lines": (None, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"[^\n]+\n?"), "isolated"), BYTES])),
    "no words": (None, BYTES),
    "stripped": (normalizers.Strip(), pre_tokenizers.ByteLevel(add_prefix_space=False)),
}


def bpe(normalizer: object, words: object) -> Tokenizer:
    made = Tokenizer(BPE(unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer, made.decoder = normalizer, words, decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([*CORPUS * 3, "it's we're 123 456 the  film \n\n was   great\r\n"], trainer)
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return made


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    found = {name: bpe(*parts) for name, parts in {**KNOWN, **UNKNOWN}.items()}
    wide = bpe(*KNOWN["gpt2"])
    wide.add_tokens([AddedToken("<wide>", lstrip=True, rstrip=True)])
    spaced = bpe(*KNOWN["gpt2"])
    spaced.add_tokens(["a b"])
    unigram = Tokenizer(
        Unigram([(piece, -float(i)) for i, piece in enumerate(["<unk>", "a", "b", " ", "a b", "é"])], 0)
    )
    unigram.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces = Tokenizer(WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()
    dropping = bpe(*KNOWN["gpt2"])
    dropping.model.dropout = 0.5
    return found | {
        "added, stripping": wide, "added, spaced": spaced, "unigram": unigram, "wordpiece": pieces, "dropout": dropping,
    }  # fmt: skip


def test_it_is_certain_of_those_only_that_are_known(tokenizers, tiny_bases: dict[str, Base]):
    assert {name for name, made in tokenizers.items() if joints.certain(made)} == set(KNOWN)
    assert all(joints.certain(base.tokenizer) for base in tiny_bases.values())


def test_the_demos_model_is_one_of_them(demo_folder):
    assert joints.certain(open_base("demo", str(demo_folder)).tokenizer)


pieces = st.sampled_from([
    "the", " film", "a b", " ", "  ", "\n", " \n ", "\r\n", "\t", "'s", "'", "'re ", "n't", "1", "12345", " 7",
    ".", "...", "é", "e\u0301", "\u0301", "日本", " 日", "🎬", "x", "<|start|>", "<|sta", "rt|>", "</s>", "\u00a0",
    "\u2028", "_", "A b C",
])  # fmt: skip
texts = st.lists(pieces, max_size=25).map("".join) | st.text(st.sampled_from("ab '1\n\u0301é"), max_size=30)
tails = texts | st.text(max_size=10)


@given(text=texts, tail=tails)
@example(text="the film was", tail="n't")
@example(text="a b \n", tail=" \n\n c")
@example(text="a b c <|sta", tail="rt|> d")
@example(text="a be", tail="\u0301 c")
def test_a_text_cut_at_its_joint_has_the_same_tokens(tokenizers, text, tail):
    for name in KNOWN:
        made = tokenizers[name]
        place, before = joints.joint(text, made.encode(text, add_special_tokens=False))
        whole = made.encode(text + tail, add_special_tokens=False).ids
        rest = made.encode(text[place:] + tail, add_special_tokens=False).ids
        assert made.encode(text, add_special_tokens=False).ids[:before] + rest == whole, name


def plainly(base: Base, row: Choice | Completion) -> object:
    """By the rule as it is written: every text is tokenised whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joints, "certain", lambda _: False)
        return outcome(base, row)


def outcome(base: Base, row: Choice | Completion) -> object:
    try:
        return encode(base, row)
    except Unencodable as error:
        return str(error)


@given(prompt=texts, choices=st.lists(tails.filter(bool), min_size=2, max_size=4, unique=True))
def test_a_row_is_what_it_is_whole(tokenizers, llama: Base, prompt: str, choices: list[str]):
    for made in tokenizers.values():
        if made.model.__class__ is BPE and made.model.dropout:
            continue  # by chance
        base = replace(llama, tokenizer=made, vocab=10_000)
        for row in (Choice(prompt, tuple(choices), 0), Completion(prompt, choices[0])):
            assert outcome(base, row) == plainly(base, row)


@given(prompt=texts, choices=st.lists(tails.filter(bool), min_size=2, max_size=9, unique=True), most=st.integers(1, 99))
def test_how_much_is_tokenised_together_changes_nothing(tiny_bases, prompt, choices, most):
    row = Choice(prompt, tuple(choices), 0)
    for base in tiny_bases.values():
        whole = outcome(base, row)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batches, "CHARACTERS", most)
            assert outcome(base, row) == whole


def test_the_last_words_alone_are_tokenised_again(llama: Base):
    """What makes a prompt with 64 choices cost about one prompt."""
    prompt = "the film was a great story " * 20 + "It was"
    row, encoding = Choice(prompt, (" great", " terrible"), 0), llama.tokenizer.encode(prompt, add_special_tokens=False)
    found = batches.Prompt.of(row, encoding, certain=True)
    assert list(found.continued) == [" was great", " was terrible"]
    assert batches.Prompt.of(row, encoding, certain=False).cut == 0
