"""The study's JSON: cells by name, written one by one, read again by whoever goes on. Knows no engine."""

import fcntl
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.report.measure import RESULTS

COMMITTED: Final = RESULTS / "study.json"


@dataclass(frozen=True)
class Point:
    """A run after `step` steps. `seconds` are processor seconds (user and system) of its steps, `prompts` those of the
    prompts that it met, neither with any evaluation; `wall` is the steps' time by the clock. `dev` and `report` are
    (held-out loss in nats a row, accuracy) on the rows that settings are chosen on and on those that are reported."""

    step: int
    forwards: int
    tokens: int
    seconds: float
    prompts: float
    wall: float
    dev: tuple[float, float]
    report: tuple[float, float]

    @property
    def cost(self) -> float:
        """Processor seconds in all."""
        return self.seconds + self.prompts


@dataclass(frozen=True)
class Measured:
    """A cell that was run. `ended`: "done", "cut" at the budget, or why it failed; `memory` is MiB above what was
    resident before the cell; `asked` what its spec was made from; `drift` the mean KL to
    the base of what it came to, nats a token (`worker.runs.drift`), None where it was not measured; `profile` tells of
    the profile that its method read, its cost in no point (`bench.study.profiled`), None where it reads none."""

    key: str
    line: str
    family: str
    method: str
    activation: str
    task: str
    seed: int
    autograd: bool
    asked: dict[str, Any]
    ended: str
    memory: float
    machine: int  # which of the file's machines
    points: list[Point] = field(default_factory=list)
    drift: float | None = None
    profile: dict[str, Any] | None = None


@dataclass
class Study:
    """All that the file holds. `machines` are those that cells were run on, in the order of coming."""

    machines: list[dict[str, Any]] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    cells: dict[str, Measured] = field(default_factory=dict)


def load(path: Path = COMMITTED) -> Study:
    """The study in a file, an empty one where there is none."""
    if not path.exists():
        return Study()
    raw = json.loads(path.read_text(encoding="utf-8"))
    found = {cell["key"]: Measured(**{**cell, "points": [_point(p) for p in cell["points"]]}) for cell in raw["cells"]}
    return Study(raw["machines"], raw["about"], found)


@contextmanager
def held(path: Path = COMMITTED) -> Iterator[Study]:
    """The study in a file, saved at the end: no other process reads it to change it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        study = load(path)
        yield study
        save(study, path)
    finally:
        os.close(folder)


def save(study: Study, path: Path = COMMITTED) -> None:
    """Write it whole, or not at all: a cell's line each, so that what changed is seen in a diff."""
    head = {"machines": study.machines, "about": study.about}
    lines = [json.dumps(_finite(_said(cell)), allow_nan=False) for cell in study.cells.values()]
    text = json.dumps(head)[:-1] + ', "cells": [\n' + ",\n".join(lines) + "\n]}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def machine_number(study: Study, machine: dict[str, Any]) -> int:
    """The place of this machine among the study's, added where it is new."""
    same = next((number for number, known in enumerate(study.machines) if alike(known, machine)), None)
    if same is None:
        study.machines.append(machine)
        return len(study.machines) - 1
    return same


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both are the same machine with the same versions: a date does not make another."""
    return {**one, "date": ""} == {**other, "date": ""}


def _said(cell: Measured) -> dict[str, Any]:
    """A cell says nothing of drift or profile where it has none: those of before stay the lines that they were."""
    return {key: value for key, value in asdict(cell).items() if value is not None or key not in ("drift", "profile")}


def _point(raw: dict[str, Any]) -> Point:
    dev, report = (tuple(math.nan if x is None else x for x in raw[name]) for name in ("dev", "report"))
    return Point(**{**raw, "dev": dev, "report": report})


def _finite(value: Any) -> Any:
    """The same with null for every float that JSON has no word for."""
    match value:
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case float() if not math.isfinite(value):
            return None
    return value
