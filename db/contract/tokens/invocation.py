"""Which tokens switch an adapter of activation `answer` on, where a tenant gives a text or leaves it to us. Knows rows
and tokens; whether every row can be trained with them is `db.contract.tokens.encoding`'s to say."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from db.contract.refusal import Refusal
from db.contract.rows.formats import Chat, Row
from db.contract.tokens import chat_template
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import Encoded, decoded, last_occurrence

# Tokens of an invocation we choose: every probe pays for each of them at every visit, and gives its adapter as many
# more tokens to act on; fewer are more likely to occur in an answer, which no row may have.
MOST: Final = 4
LONGEST: Final = 64  # tokens of one a tenant names: what AdapterSpec holds


Ids = tuple[int, ...]


@dataclass(frozen=True)
class Tail:
    """What the prompts of a file's first rows end in: `ids` [up to MOST] are common to all of them. Where that is none,
    `line` is the first whose prompt ends in another token, `other` its own end, `before` what was common until then."""

    ids: tuple[int, ...]
    line: int = 0
    other: tuple[int, ...] = ()
    before: tuple[int, ...] = ()


def prompt(base: Base, row: Encoded) -> tuple[int, ...]:
    """The ids before the first scored token, of a conversation's last scored turn. The tokenizer's prefix is left out:
    it is at the very start of a text only."""
    ids = _before_answer(row)
    return ids[len(base.prefix) :] if ids[: len(base.prefix)] == base.prefix else ids


def _before_answer(row: Encoded) -> tuple[int, ...]:
    sequence, positions, _ = row.candidates[0]
    first = len(positions) - 1
    while first > 0 and positions[first - 1] == positions[first] - 1:
        first -= 1
    return row.sequences[sequence][: positions[first] + 1]


def joined(tail: Tail | None, base: Base, row: Encoded, line: int) -> Tail:
    """The tail of the rows up to `line`, of those before it (None for the first line) and of the row there."""
    if tail is not None and not tail.ids:
        return tail
    end = prompt(base, row)[-MOST:]
    ids = end if tail is None else common(tail.ids, end)
    return Tail(ids) if ids else Tail((), line, end, tail.ids if tail is not None else ())


def common(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """The longest end of both."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    same = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    return one[len(one) - same :]


def shared(base: Base, tails: Sequence[tuple[str, Tail]]) -> Ids | Refusal:
    """What `auto` means for files, each given as (its name for the tenant, its tail): the longest common end of all
    their prompts, at most MOST ids. Refused where there is none."""
    rule = "there is no invocation: every prompt must end in the same token(s), e.g. 'Answer:'"
    ids = tails[0][1].ids
    for name, tail in tails:
        if not tail.ids:
            ends = f"line {tail.line} of the {name} ends in {decoded(base, tail.other)!r}"
            return _refusal(f"{rule}; {ends}{_unlike(base, tail.before)}")
        if not common(ids, tail.ids):
            ends = f"those of the {name} end in {decoded(base, tail.ids)!r}"
            return _refusal(f"{rule}; {ends}{_unlike(base, ids)}")
        ids = common(ids, tail.ids)
    return ids


def _unlike(base: Base, before: tuple[int, ...]) -> str:
    return f", those before in {decoded(base, before)!r}" if before else ""


def spelled(base: Base, row: Row, encoded: Encoded, text: str) -> Ids | Refusal:
    """What a text means, by the first row: the tokens that spell it where its prompt has it last, since they depend on
    what precedes them; else those of the text alone, if the prompt has them. Refused otherwise."""
    ids = _before_answer(encoded)
    # The text whose tokens end with the prompt's: a conversation's has its own BOS in it.
    whole, tokens = (chat_template.text(base, row), len(ids)) if isinstance(row, Chat) else (row.prompt, None)
    encoding = base.tokenizer.encode(whole, add_special_tokens=False)
    starts, ends = ([offset[side] for offset in encoding.offsets[:tokens]] for side in (0, 1))
    place = whole.rfind(text, 0, ends[-1] if ends else 0)
    first, last = bisect_right(ends, place), bisect_left(starts, place + len(text))
    alone = tuple(base.tokenizer.encode(text, add_special_tokens=False).ids)
    if place >= 0 and starts[first] == place and ends[last - 1] == place + len(text):
        found = tuple(encoding.ids[first:last])
    elif alone and last_occurrence(ids, alone) is not None:
        found = alone
    elif place < 0:
        return _refusal(
            f"the invocation {text!r} is not in line 1's prompt, which ends in {decoded(base, ids[-MOST:])!r}"
        )
    else:
        send = whole[starts[first] : ends[last - 1]]
        return _refusal(f"the invocation {text!r} begins or ends within a token of line 1's prompt: send {send!r}")
    if len(found) > LONGEST:
        return _refusal(f"the invocation has {len(found)} tokens: at most {LONGEST}")
    return found


def _refusal(reason: str) -> Refusal:
    return Refusal("onward.invocation", f"{reason[0].upper()}{reason[1:]}.", "no_invocation")
