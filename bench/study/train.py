"""Runs cells one after the other on one resident engine, and takes down what each step cost. Knows no table.

A step is the product's own (`worker.runs.cohort`). Evaluation is outside of it and of every figure: both sets of
held-out rows by the resident engine, whoever trained.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.study import resident
from bench.study.counted import PROMPT_BYTES, Counting, Kept
from bench.study.lines import Cell, Task
from bench.study.profiled import Profile, Profiles
from bench.study.rows import FEWER, rows
from bench.study.store import Measured, Point
from bench.workloads import invocation_of
from db.contract import methods
from db.contract.objectives import OBJECTIVES
from db.contract.presets import resolve
from db.contract.rows.formats import Format
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from worker.runs import cohort, drift
from worker.runs.data import Dataset, examples
from worker.runs.run import Run, start
from worker.scoring.engine_scorer import EngineScorer
from worker.scoring.prompts import prompts
from worker.scoring.scorer import Scorer
from worker.types import Example, Trial

SCOPE = "study"
MIB = 1 << 20
FORMATS: Final[Mapping[Task, Format]] = {
    "sentiment": "choice", "topic": "choice", "chat": "chat", "written": "completion", "reviews": "completion",
}  # fmt: skip


@dataclass(frozen=True)
class Sets:
    """A task's examples, for one activation."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    report: tuple[Example, ...]
    invocation: tuple[int, ...]


@dataclass
class _Spent:
    """What a cell's steps have come to so far."""

    forwards: int = 0
    tokens: int = 0
    seconds: float = 0.0
    prompts: float = 0.0
    wall: float = 0.0
    memory: int = 0  # bytes at most, resident
    met: set[bytes] = field(default_factory=set)


class Bench:
    """One base, its resident engine, and the torch scorer once an autograd method asks for it."""

    def __init__(self, base: Base, machine: int, dtype: str = "float32") -> None:
        self.base, self.machine = base, machine
        self.engine = EngineScorer(str(base.source), slots=64, prompt_bytes=PROMPT_BYTES, dtype=dtype)
        self._torch: Scorer | None = None
        self._sets: dict[tuple[Any, ...], Sets] = {}
        # Processor seconds of a row's prompt when it was first computed here, by the engine and by the torch scorer.
        self._prompt_seconds: dict[bytes, float] = {}
        self._kept, self._profiles = Kept(), Profiles(base)
        self._starts: dict[tuple[Any, ...], tuple[tuple[float, float], tuple[float, float]]] = {}

    def run(self, cell: Cell, say: Callable[[str], None]) -> Measured:
        """A cell to its end, its budget or its failure."""
        line, sets = cell.line, self._of(cell)
        autograd = methods.ARMS[line.method].autograd
        scorer = Counting(self._autograd() if autograd else self.engine)
        profile = self._profiles.of(cell, rows(cell.task, line.template).train, sets.invocation)
        run, asked = self._started(cell, sets, profile)
        spent, points, ended = _Spent(), [self._point(0, _Spent(), self._start(cell, run, sets))], "done"
        before = resident.now()
        for stop in line.points:
            while run.step < stop and run.failed is None:
                run = self._step(run, scorer, spent, autograd)
            points.append(self._point(run.step, spent, self._evaluated(run, sets)))
            say(_said(cell, points[-1]))
            if run.failed is not None:
                ended = run.failed
                break
            if points[-1].cost > line.budget and stop != line.points[-1]:
                ended = "cut"
                break
        return Measured(
            key=cell.key,
            line=line.name,
            family=line.family,
            method=line.method,
            activation=line.activation,
            task=cell.task,
            seed=cell.seed,
            autograd=autograd,
            asked=asked,
            ended=ended,
            memory=round(max(0, spent.memory - before) / MIB, 1),
            machine=self.machine,
            points=points,
            drift=self._drift(run),
            profile=None if profile is None else profile.told,
        )

    def close(self) -> None:
        self.engine.close()
        if self._torch is not None:
            self._torch.close()

    def _step(self, run: Run, scorer: Counting, spent: _Spent, autograd: bool) -> Run:
        """One step, its cost taken down. The engine's prompts are computed before it, so that they are told apart; what
        a prompt cost is remembered, for cells that meet it again."""
        new = {e.prompt_key: e for e in run.minibatch() if e.start and e.prompt_key not in spent.met}
        spent.met.update(new)
        if not autograd:
            self._prefilled(new)
        resident.forget_peak()
        known = sum(self._kept.seconds.values())
        cpu, wall, trials = time.process_time(), time.perf_counter(), scorer.trials
        ((after, result),) = cohort.step([run], scorer)
        spent.seconds += time.process_time() - cpu - (sum(self._kept.seconds.values()) - known)
        cost = self._kept.seconds if autograd else self._prompt_seconds
        spent.prompts += sum(cost[key] for key in new)
        spent.wall += time.perf_counter() - wall
        spent.forwards += scorer.trials - trials
        spent.tokens += result.tokens
        spent.memory = max(spent.memory, resident.peak())
        return after

    def _prefilled(self, new: Mapping[bytes, Example]) -> None:
        """The engine has these rows' prompts; what those cost that it had not is taken down."""
        unknown = [e for key, e in new.items() if key not in self._prompt_seconds]
        if not unknown:
            return
        cpu = time.process_time()
        self.engine.owner.run(
            lambda: prompts(
                [(SCOPE, e) for e in unknown],
                self.engine.prompt_cache,
                self.engine.engine.keys_and_values,
                token_bytes=self.engine.engine.token_bytes,
                max_tokens=4096,
            )
        )
        each = (time.process_time() - cpu) / sum(e.start for e in unknown)
        self._prompt_seconds.update({e.prompt_key: each * e.start for e in unknown})

    def _started(self, cell: Cell, sets: Sets, profile: Profile | None) -> tuple[Run, dict[str, Any]]:
        line, read = cell.line, {} if profile is None else {"profile": profile.told["sha256"]}
        given = {**line.asked, **read, "activation": line.activation, "invocation": sets.invocation, "seed": cell.seed}
        whole = resolve({**given, "eval_every": line.steps}, self.base, FORMATS[cell.task], len(sets.train))
        spec = JobSpec(model=self.base.name, training_file=cell.task, **whole)
        asked = spec.model_dump(mode="json", include={"adapter", "method", "steps", "batch_size", "repeat"})
        data = None if profile is None else profile.data
        return start(cell.key, spec, self.base, Dataset(sets.train), SCOPE, data), asked

    def _start(self, cell: Cell, run: Run, sets: Sets) -> tuple[tuple[float, float], tuple[float, float]]:
        """Every run of a task begins as the bare base does."""
        key = _told(cell)
        if key not in self._starts:
            self._starts[key] = self._evaluated(run, sets)
        return self._starts[key]

    def _evaluated(self, run: Run, sets: Sets) -> tuple[tuple[float, float], tuple[float, float]]:
        parts = (sets.dev,) if sets.dev is sets.report else (sets.dev, sets.report)
        greedy = OBJECTIVES[run.spec.objective].greedy
        trials = [Trial(run.layout, run.params, part, run.spec.objective, "held out", greedy) for part in parts]
        found = self.engine.score(trials)
        dev, report = found[0], found[-1]
        return (dev.mean, dev.accuracy or 0.0), (report.mean, report.accuracy or 0.0)

    def _drift(self, run: Run) -> float | None:
        """Of the adapter as the cell ends, by the function that jobs are told theirs by; outside of every cost."""
        found = drift.measured(self.engine, self.base, run.layout, run.params, SCOPE)
        return None if found is None or not math.isfinite(found) else float(f"{found:.4g}")

    def _point(self, step: int, spent: _Spent, held_out: tuple[tuple[float, float], tuple[float, float]]) -> Point:
        dev, report = ((round(loss, 5), round(accuracy, 4)) for loss, accuracy in held_out)
        seconds, prompt, wall = (round(x, 3) for x in (spent.seconds, spent.prompts, spent.wall))
        return Point(step, spent.forwards, spent.tokens, seconds, prompt, wall, dev, report)

    def _of(self, cell: Cell) -> Sets:
        key = _told(cell)
        if key not in self._sets:
            made = rows(cell.task, cell.line.template)
            ids = invocation_of(self.base, made.train)[-cell.line.acting :] if cell.line.activation == "answer" else ()
            train, dev, report = (examples(self.base, raw, None, ids) for raw in (made.train, made.dev, made.report))
            if made.dev == made.report:
                report = dev
            elif cell.line.activation == "all":
                dev, report = dev[: FEWER[0]], report[: FEWER[1]]
            self._sets[key] = Sets(train, dev, report, ids)
        return self._sets[key]

    def _autograd(self) -> Scorer:
        if self._torch is None:
            from worker.oracle.torch_scorer import TorchScorer

            self._torch = TorchScorer(str(self.base.source), kept=self._kept)
        return self._torch


def _told(cell: Cell) -> tuple[Any, ...]:
    """What decides a cell's rows, and which of their tokens an adapter acts on."""
    line = cell.line
    return cell.task, line.activation, line.template, line.acting


def opened(home: Path, machine: int, dtype: str = "float32") -> Bench:
    """The bench on the packaged model, made under `home` at the first call."""
    logging.getLogger("vllm").setLevel(logging.ERROR)  # it says the same at every call
    from cli.local.demo_model import DEMO_MODEL, demo_model
    from db.contract.tokens.base_model import open_base

    return Bench(open_base(DEMO_MODEL, str(demo_model(home))), machine, dtype)


def _said(cell: Cell, point: Point) -> str:
    loss, accuracy = point.report
    return (
        f"{cell.key}: step {point.step}  dev {point.dev[0]:.4f}  reported {loss:.4f} ({accuracy:.3f})  "
        f"{point.seconds:.1f} s + {point.prompts:.1f} s of prompts"
    )
