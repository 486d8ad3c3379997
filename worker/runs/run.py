"""A job in a worker's memory: its spec, its data and the point it stands at. Pure; knows no engine, SQL or queue."""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from db.contract.history import Restart
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from worker.runs import recipes
from worker.runs.data import Dataset
from worker.runs.divergence import Watch
from worker.runs.rebuilding import went_back
from worker.runs.replay import Point
from worker.types import Example, Layout, Params
from worker.zo.method import Method, State

NONFINITE_LIMIT: Final = 5  # steps in a row that were left out after which a run has failed


@dataclass(frozen=True)
class Run:
    """A job in a worker's memory, before its next step. `best` is (step, held-out loss) of the best evaluation, and
    `best_point` what was evaluated, None where that was in another process; `watch` is what all of them came to."""

    job_id: str
    spec: JobSpec
    layout: Layout
    method: Method[Any]
    data: Dataset
    params: Params
    state: State
    best: tuple[int, float] | None = None
    evaluated: int = -1  # the last step whose adapter was evaluated
    scope: str = ""  # whose it is, as trials say it
    best_point: Point | None = None
    watch: Watch = field(default_factory=Watch)
    profile: bytes | None = field(default=None, repr=False)  # the file that its method's settings name

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.state.step

    @property
    def point(self) -> Point:
        return Point(self.params, self.state)

    def at(self, point: Point, best: tuple[int, float] | None = None, restarts: int = 0) -> "Run":
        """The run at a point of its journal, which so many restarts led to; `best` is what was recorded with it. An
        evaluation that was due at the step reached is due again."""
        method = self._method(restarts) if restarts else self.method
        kept = best or self.best
        return replace(self, params=point.params, state=point.state, method=method, best=kept, evaluated=-1)

    def back(self) -> "Run":
        """The run gone back to its best step, which it goes on from at half the rate. Raises ValueError where that
        point is not at hand."""
        if self.best_point is None:
            raise ValueError("there is no best step to go back to")
        watch = self.watch.went_back(Restart(self.step, self.best_point.state.step))
        point = went_back(self.best_point, self.step)
        method = self._method(len(watch.restarts))
        return replace(self, params=point.params, state=point.state, method=method, watch=watch)

    def _method(self, restarts: int) -> Method[Any]:
        return recipes.method(self.spec, self.layout, restarts, self.profile)

    def minibatch(self) -> tuple[Example, ...]:
        """The examples of the next step."""
        return self.data.minibatch(self.spec.seed, self.step, self.spec.batch_size, self.spec.repeat)

    @property
    def failed(self) -> str | None:
        """Why the run cannot go on, or None."""
        if self.state.nonfinite < NONFINITE_LIMIT:
            return None
        row = f"{self.state.nonfinite} steps in a row, the last of them step {self.step - 1}"
        return f"losses were not finite, or too large for a finite update, at {row}"

    @property
    def stopped(self) -> str | None:
        """Why the run has ended before its last step, or None."""
        return self.watch.stopped

    @property
    def evaluation_due(self) -> bool:
        """Whether the adapter as it is now is still to be evaluated: after 0, eval_every, ... and the last step."""
        measured = min(self.spec.eval_rows, len(self.data.valid)) > 0
        due = self.step % self.spec.eval_every == 0 or self.step == self.spec.steps
        return measured and due and self.evaluated < self.step

    @property
    def done(self) -> bool:
        """All steps are taken and the last evaluation is in, or the run has failed or was stopped."""
        ended = self.failed is not None or self.stopped is not None
        return ended or (self.step == self.spec.steps and not self.evaluation_due)


def start(job_id: str, spec: JobSpec, base: Base, data: Dataset, scope: str = "", profile: bytes | None = None) -> Run:
    """The run before step 0. Raises `db.contract.tokens.base_model.UnknownTarget`, and ValueError where `profile` is
    not the file that the spec names."""
    layout = recipes.layout(spec, base)
    method = recipes.method(spec, layout, profile=profile)
    params, state = method.init()
    return Run(job_id, spec, layout, method, data, params, state, scope=scope, profile=profile)
