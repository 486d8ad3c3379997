"""Profiles that cells read, each made once on the packaged base, and what making it cost. Knows no table.

A profile is of the task's own training rows, the first of them: what a method can have at most, for who names a profile
of other rows has one that fits less. It is made as `onward profiles make` makes it, the model's loading counted; of the
tokens that the cell's adapter acts on, unless its line says `activation` "all".
"""

import time
from dataclasses import dataclass
from typing import Any, Final

from bench.study.lines import Cell
from db.contract.presets import counted
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import decoded
from worker.profiling import make
from worker.profiling.meta import Plan
from worker.runs.profiles import read

ROWS: Final = 50  # that a profile is made from, where its line says nothing else


@dataclass(frozen=True)
class Profile:
    """A profile's file, and what its cells tell of it: what it was made from, its hash, `seconds` of processor time,
    and what its maker said."""

    data: bytes
    told: dict[str, Any]


class Profiles:
    """Those of one base, by what they were asked to be."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._made: dict[str, Profile] = {}

    def of(self, cell: Cell, rows: bytes, invocation: tuple[int, ...]) -> Profile | None:
        """The profile that this cell's line asks for, None where it asks for none."""
        if not cell.line.profile:
            return None
        key = repr((sorted(cell.line.profile.items()), cell.line.asked["layers"], cell.task, invocation))
        if key not in self._made:
            self._made[key] = self._make(cell, rows, invocation)
        return self._made[key]

    def _make(self, cell: Cell, rows: bytes, invocation: tuple[int, ...]) -> Profile:
        asked = dict(cell.line.profile)
        plan = Plan(**asked.pop("plan", {}))
        answer = asked.pop("activation", "answer") == "answer"
        acting = decoded(self._base, invocation) if invocation and answer else None
        where = {"targets": tuple(cell.line.fields["targets"]), "last": counted(cell.line.asked["layers"])}
        wanted = make.Wanted(**{"rank": 8, "rows": ROWS, **where, **asked}, invocation=acting, plan=plan)
        before = time.process_time()
        found = make.make(wanted, self._base, (rows,))
        seconds = round(time.process_time() - before, 3)
        told = {**cell.line.profile, "rows": wanted.rows, "seconds": seconds, "said": list(found.said)}
        return Profile(found.data, {**told, "sha256": read(found.data).of.sha256})
