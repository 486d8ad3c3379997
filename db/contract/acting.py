"""Which tokens a job's adapter acts on, decided purely over what its rows came to. Reads no file, counts no token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard

from db.contract.pricing import Counts
from db.contract.refusal import Refusal
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import decoded
from db.contract.tokens.invocation import Tail

CHEAPER: Final = 4  # times that `answer` must save on a visit for "auto" to choose it: it gives up plain LoRA's reach
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Counted:
    """A file under a model and an invocation: tokens of its rows, target tokens in all, and what its prompts end in."""

    counts: Counts
    targets: int
    tail: Tail


@dataclass(frozen=True)
class Readings:
    """What the files came to, the training file first: each Counted, or refused for its first row that cannot be.

    `plain` is for an adapter that acts on all tokens, `answer` for one that acts from `invocation` on; what the
    activation asked for does not need is left out. A Refusal in the place of `invocation` says why there is none.
    """

    plain: tuple[Counted | Refusal, ...] = ()
    invocation: Ids | Refusal = ()
    answer: tuple[Counted | Refusal, ...] = ()


@dataclass(frozen=True)
class Activation:
    """`invocation` is empty for `all`, `text` what it spells; `counts` are of the files, in their order."""

    invocation: Ids
    text: str | None
    counts: tuple[Counts, ...]


def early(activation: str, text: str | None) -> Refusal | None:
    """What no row decides."""
    if activation != "all" or text is None:
        return None
    message = "'onward.invocation' belongs to activation 'answer', which was not asked for."
    return Refusal("onward.invocation", message)


def settled(activation: str, text: str | None, able: bool, base: Base, readings: Readings) -> Activation | Refusal:
    """What `activation` ("all", "answer", "auto") and the invocation's `text` (None: to be chosen) come to.

    `able` says whether the adapter's modules may be acted on from an invocation on. Refused: an invocation that the
    rows do not have, and a row that the model cannot be trained on.
    """
    if (bad := _refused(readings.plain)) is not None:
        return bad
    if activation == "answer":
        ids = readings.invocation
        bad = ids if isinstance(ids, Refusal) else _refused(readings.answer)
        return bad or _from(ids, text, base, readings.answer)
    if activation == "auto" and able and _cheaper(readings):
        return _from(readings.invocation, text, base, readings.answer)
    return Activation((), None, tuple(one.counts for one in readings.plain if isinstance(one, Counted)))


def _cheaper(readings: Readings) -> bool:
    """Whether every row can be trained with `answer`, nothing to be learned is dropped, and it is worth it."""
    plain, answer = readings.plain, readings.answer
    if not answer or not (_whole(plain) and _whole(answer)) or len(answer) < len(plain):
        return False
    if any(a.targets < p.targets for a, p in zip(answer, plain, strict=True)):
        return False
    return CHEAPER * sum(answer[0].counts.visit) <= sum(plain[0].counts.visit)


def _from(ids: Ids | Refusal, text: str | None, base: Base, counted: Sequence[Counted | Refusal]) -> Activation:
    assert not isinstance(ids, Refusal)
    spelled = decoded(base, ids) if text is None else text
    return Activation(ids, spelled, tuple(one.counts for one in counted if isinstance(one, Counted)))


def _refused(readings: Sequence[Counted | Refusal]) -> Refusal | None:
    return next((one for one in readings if isinstance(one, Refusal)), None)


def _whole(readings: Sequence[Counted | Refusal]) -> TypeGuard[Sequence[Counted]]:
    return _refused(readings) is None
