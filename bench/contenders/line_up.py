"""Who is timed on a workload: every contender behind one face. Knows their constructors; no clock and no table."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from bench import workloads
from bench.contenders.cached import CachedScoring
from bench.contenders.official import LozoLoop, MezoLoop, Official
from bench.contenders.strong import Loaded, LozoStrong, MezoStrong, Scoring
from bench.workloads import CACHED, ENGINE, OFFICIAL, Workload
from db.contract.methods.lozo import Lozo
from db.contract.tokens.base_model import Base
from worker.runs import cohort
from worker.runs.run import Run, start
from worker.scoring.scorer import Scorer
from worker.types import Example, Trial


class Jobs:
    """A workload's jobs before step 0, and what each step of them is."""

    def __init__(self, w: Workload, base: Base) -> None:
        data, ids = workloads.data(w, base)
        specs = [workloads.spec(w, base, i, ids) for i in range(w.jobs)]
        self.workload = w
        self.runs = [start(f"{w.name} {i}", s, base, data, f"{w.name} {i}") for i, s in enumerate(specs)]

    def minibatch(self, run: Run, step: int) -> tuple[Example, ...]:
        return run.data.minibatch(run.spec.seed, step, self.workload.batch)

    def examples(self, steps: Sequence[int]) -> list[tuple[Run, Example]]:
        """(job, example) of these steps, each pair once."""
        seen = {(i, id(e)): (r, e) for i, r in enumerate(self.runs) for s in steps for e in self.minibatch(r, s)}
        return list(seen.values())

    def tokens(self, step: int) -> int:
        """Scored tokens of a step of all jobs."""
        return sum(2 * e.tokens for run in self.runs for e in self.minibatch(run, step))

    def rows(self, step: int) -> int:
        """Rows of logits that a step of all jobs cannot do without."""
        examples = [e for run in self.runs for e in self.minibatch(run, step)]
        return sum(2 * len({(c.sequence, int(p)) for c in e.candidates for p in c.positions}) for e in examples)


class Contender(Protocol):
    def first(self) -> list[float]:
        """Losses of the first job's first minibatch: at its start, and for those that score probes at its probes."""
        ...

    def warm(self, steps: Sequence[int], /) -> int:
        """Compute what a job computes once for the examples of these steps; how many tokens that were."""
        ...

    def step(self, number: int, /) -> None:
        """One step of every job of the workload."""
        ...


class Engine:
    """(c): all jobs as one cohort of `worker.runs.cohort` on the resident engine."""

    def __init__(self, jobs: Jobs, scorer: Scorer) -> None:
        self._jobs, self._scorer, self._runs = jobs, scorer, list(jobs.runs)

    def first(self) -> list[float]:
        run, examples = self._runs[0], self._jobs.minibatch(self._runs[0], 0)
        probes = [run.params, *(probe.params for probe in run.method.ask(run.params, run.state, ()))]
        trials = [Trial(run.layout, p, examples, run.spec.objective) for p in probes]
        return [loss.mean for loss in self._scorer.score(trials)]

    def warm(self, steps: Sequence[int]) -> int:
        rows: dict[int, tuple[Run, list[Example]]] = {}
        for run, example in self._jobs.examples(steps):
            if example.start:
                rows.setdefault(id(run), (run, []))[1].append(example)
        trials = [Trial(r.layout, r.params, tuple(own), r.spec.objective, r.scope) for r, own in rows.values()]
        if trials:
            self._scorer.score(trials)
        return sum(e.start for t in trials for e in t.examples)

    def step(self, _: int) -> None:
        self._runs = [run for run, _ in cohort.step(self._runs, self._scorer)]


class Strong:
    """(b) and (b+cache): one loop a job in turn, over one copy of the base model."""

    def __init__(self, jobs: Jobs, base: Loaded, kind: type[Scoring]) -> None:
        w, run = jobs.workload, jobs.runs[0]
        self._jobs, self._scoring = jobs, kind(base, run.layout)
        self._loops = [
            LozoStrong(self._scoring, workloads.EPS, workloads.RATE, w.window, r.spec.method.nu)
            if isinstance(r.spec.method, Lozo)
            else MezoStrong(self._scoring, r.params, workloads.EPS, workloads.RATE)
            for r in jobs.runs
        ]

    def first(self) -> list[float]:
        run = self._jobs.runs[0]
        asked = run.method.ask(run.params, run.state, ())
        probes = [torch.from_numpy(p) for p in (run.params, *(probe.params for probe in asked))]
        return self._scoring.losses(torch.stack(probes), self._jobs.minibatch(run, 0), run.spec.objective)

    def warm(self, steps: Sequence[int]) -> int:
        if not isinstance(self._scoring, CachedScoring):
            return 0
        return self._scoring.warm([e for _, e in self._jobs.examples(steps)])

    def step(self, number: int) -> None:
        for loop, run in zip(self._loops, self._jobs.runs, strict=True):
            loop.step(self._jobs.minibatch(run, number), number, run.spec.objective)


class Old:
    """(a): one job."""

    def __init__(self, jobs: Jobs, path: str) -> None:
        w, (run,) = jobs.workload, jobs.runs
        self._jobs, self._run = jobs, run
        self._loop: Official
        method = run.spec.method
        if isinstance(method, Lozo):
            self._loop = LozoLoop(path, run.layout, workloads.EPS, workloads.RATE, w.window, method.nu)
        else:
            self._loop = MezoLoop(path, run.layout, run.params, workloads.EPS, workloads.RATE)

    def first(self) -> list[float]:
        return [self._loop.loss(self._jobs.minibatch(self._run, 0), self._run.spec.objective)]

    def warm(self, _: Sequence[int]) -> int:
        return 0

    def step(self, number: int) -> None:
        self._loop.step(self._jobs.minibatch(self._run, number), number, self._run.spec.objective)


def contender(name: str, jobs: Jobs, path: str, loaded: Any, scorer: Any) -> Contender:
    """`loaded` () gives the strongest loop's model, `scorer` () the engine's scorer: each is started where it is
    needed only."""
    if name == OFFICIAL:
        return Old(jobs, path)
    if name == ENGINE:
        return Engine(jobs, scorer())
    return Strong(jobs, loaded(), CachedScoring if name == CACHED else Scoring)
