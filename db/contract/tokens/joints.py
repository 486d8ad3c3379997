"""Where a text may be cut without changing one of its tokens: so that what many texts begin with is tokenised once.

Only where it is certain. Byte-level BPE is applied to each word of a pre-tokenizer, and the known ones never join an
ASCII letter to a space that an ASCII letter follows, whatever stands before or after. Knows a tokenizer, no rows.
"""

import json
from bisect import bisect_left
from typing import Any, Final

from tokenizers import Encoding, Tokenizer
from tokenizers.models import BPE

NORMALIZERS: Final = ("NFC", "NFD")  # which change nothing at such a place
# Words of the tokenizers of Llama 3 (three digits at most), of Qwen 2 (one) and, as bytes, of GPT-2.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS: Final = (
    _WORDS % r"\p{N}{1,3}",
    _WORDS % r"\p{N}",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
)


def certain(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer is one of which that is known."""
    model = tokenizer.model
    if not isinstance(model, BPE) or model.dropout:
        return False
    if any(
        t.lstrip or t.rstrip or t.single_word or " " in t.content for t in tokenizer.get_added_tokens_decoder().values()
    ):
        return False
    normalizer = _described(tokenizer.normalizer)
    if normalizer and normalizer["type"] not in NORMALIZERS:
        return False
    parts = _described(tokenizer.pre_tokenizer)
    steps = parts.get("pretokenizers", [parts]) if parts else []
    return any(_into_words(step) for step in steps) and all(_into_words(step) or _finer(step) for step in steps)


def joint(text: str, encoding: Encoding) -> tuple[int, int]:
    """The last such place in `text`, in characters, and how many tokens of its `encoding` are before it. (0, 0) where
    there is none."""
    offsets = encoding.offsets
    place = len(text)
    while (place := text.rfind(" ", 0, place)) > 0:
        around = text[place - 1] + text[place + 1 : place + 2]
        if len(around) == 2 and around.isascii() and around.isalpha():
            before = bisect_left(offsets, (place, 0))
            if before < len(offsets) and offsets[before][0] == place == offsets[before - 1][1]:
                return place, before
    return 0, 0


def _described(part: Any) -> dict[str, Any]:
    """A part of a tokenizer as tokenizer.json has it; empty for none."""
    found: dict[str, Any] = json.loads(part.__getstate__()) if part is not None else {}
    return found


def _into_words(step: dict[str, Any]) -> bool:
    if step["type"] == "ByteLevel":
        return bool(step["use_regex"])
    if step["type"] != "Split" or step["behavior"] != "Isolated" or step["invert"]:
        return False
    return step["pattern"].get("Regex") in WORDS


def _finer(step: dict[str, Any]) -> bool:
    """What divides words further, or spells them in bytes."""
    return step["type"] in ("ByteLevel", "Digits")
