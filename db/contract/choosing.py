"""Which method `auto` takes: the study's soonest for this base, objective and activation. Pure: knows no SQL."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, get_args, get_origin

from db.contract import methods
from db.contract.evidence import EVIDENCE, Evidence
from db.contract.profiles import needed

FORWARD: Final = methods.DEFAULT  # where nothing is measured
# Where nothing is measured and a gradient can be had: of objectives whose answers have many tokens.
GRADIENT: Final = {"lm": "first_order"}
# What measured seconds are multiplied by, by the seeds behind them, before they are compared: seeds of one line differ
# by half of their mean (docs/methods/study.md), so one lucky run does not displace a line that three seeds stand for.
DOUBT: Final = {1: 2.0, 2: 1.5}


@dataclass(frozen=True)
class Chosen:
    """A method that nobody named, and why it is this one."""

    method: str
    why: str


def said(steps: int, tokens: int, request: Mapping[str, Any]) -> str:
    """What a job comes to, for its first event: with the method and why, where the stored request named none."""
    chosen = request.get("chosen")
    why = f"; method {chosen['method']}, {chosen['why']}" if chosen else ""
    return f"{steps} steps, {tokens} scored tokens{why}"


@dataclass(frozen=True)
class Kind:
    """What evidence is found by; `barred` says why no worker can differentiate this base, None where one can."""

    model: str
    objective: str
    activation: str
    barred: str | None = None

    def matches(self, line: Evidence) -> bool:
        named = fnmatchcase(self.model.lower(), line.model) and fnmatchcase(self.objective, line.objective)
        return named and line.activation == self.activation


def barred(quantised: bool, autograd: bool) -> str | None:
    """Why a method that needs autograd cannot run; `autograd` says that a worker which can is registered."""
    if quantised:
        return "a quantised base has no derivatives"
    return None if autograd else "no worker with the torch scorer is registered for this base"


def choices(kind: Kind, asked: Mapping[str, Any], evidence: Sequence[Evidence] = EVIDENCE) -> Iterator[Chosen]:
    """The methods to try for a job that names none, best first: those measured for its kind by their seconds, which
    count for more where fewer than three seeds stand for them (DOUBT), then what is taken unmeasured. Only methods that
    have every setting in `asked`, but for the last: what it refuses is refused. None that reads a profile where none is
    named: there is no default of it."""
    able = {name for name in methods.ARMS if has(name, asked) and ("profile" in asked or not needed(name))}
    lines = sorted((line for line in evidence if kind.matches(line) and line.seconds is not None), key=_worth)
    left = [line for line in lines if kind.barred and line.autograd]
    for line in lines:
        if line not in left and line.method in able:
            yield Chosen(line.method, _measured(line, left, len(lines), kind.barred))
    yield from _unmeasured(kind, able, bool(lines))


def has(method: str, asked: Mapping[str, Any]) -> bool:
    """Whether the method has each setting in `asked`, and its value where that is one of a few words."""
    own = methods.ARMS[method].model_fields
    given = [name for name in methods.FIELDS if name in asked]
    return all(name in own and _among(own[name].annotation, asked[name]) for name in given)


def _among(kind: Any, value: Any) -> bool:
    return get_origin(kind) is not Literal or value in get_args(kind)


def _seconds(line: Evidence) -> float:
    assert line.seconds is not None
    return line.seconds


def _worth(line: Evidence) -> float:
    return _seconds(line) * DOUBT.get(line.seeds, 1.0)


def _measured(line: Evidence, left: Sequence[Evidence], measured: int, why: str | None) -> str:
    seeds = f"{line.seeds} seed{'s' if line.seeds != 1 else ''}"
    said = (
        f"measured: {_seconds(line):.3g} s of processor time to a held-out loss of {line.target:.3g}, {seeds}, "
        f"the least of those of {measured} methods measured that this job can take, where a time of one seed counts "
        "double and of two half as much again"
    )
    sooner = [one for one in left if _worth(one) < _worth(line)]
    return said + "".join(f"; {one.method} had {_seconds(one):.3g} s, but {why}" for one in sooner[:1])


def _unmeasured(kind: Kind, able: Collection[str], some: bool) -> Iterator[Chosen]:
    """What is taken without evidence that this job can use; `some` says that there is evidence."""
    here = "none of the methods measured for such jobs can take it" if some else "not measured for such jobs"
    best = GRADIENT.get(kind.objective)
    if best is not None and best in able and kind.barred is None:
        yield Chosen(
            best,
            f"{here}: {best} because a gradient tells more of a long answer than losses of probes do, and a worker "
            "with the torch scorer is registered",
        )
    because = ""
    if best is not None and kind.barred is not None:
        because = f", because {kind.barred}"
    elif best is not None and best not in able:
        because = f", because {best} has not the settings asked for"
    yield Chosen(FORWARD, f"{here}: {FORWARD} with its preset, by forward passes alone{because}")
