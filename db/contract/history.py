"""What an adapter follows from: a spec, the losses of its steps, and the history of the adapter it went on from."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Optional

from db.contract.spec import JobSpec


@dataclass(frozen=True)
class Restart:
    """Once `at` steps were taken, the run went back to the adapter and the optimizer after `origin` of them, and on at
    half its rate. What it has after `at` steps is what it went back to: what it left is nowhere."""

    at: int
    origin: int


@dataclass(frozen=True)
class History:
    """`losses` are of steps 0, 1, ... in the order the probes were asked, nats; `restarts` lie within them, in order,
    after one step at least and before the end of all.
    `parent` is there exactly where `spec.parent` is, and ends at the step that it names; `profile` are the bytes of the
    file that the method's settings name, where they name one and it is at hand."""

    spec: JobSpec
    losses: Sequence[Sequence[float]]
    restarts: tuple[Restart, ...] = ()
    parent: Optional["History"] = None
    profile: bytes | None = field(default=None, repr=False)

    @property
    def step(self) -> int:
        """Steps that it tells of."""
        return len(self.losses)

    def upto(self, step: int) -> "History":
        """The same up to the adapter after `step` steps."""
        return replace(self, losses=self.losses[:step], restarts=tuple(r for r in self.restarts if r.at <= step))
