"""Who has the engine next: a step of what is served, or training. Pure: who wants it and what each has had come in, a
word goes out.

A person reads what is served, so it goes first; where training is promised a share of the time in which both want the
engine, it goes first until it has that, the step that would come next counted as had.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

Word = Literal["serve", "train", "pause"]  # pause: a step is served within an act of training
HALF: Final = 5.0  # seconds of both that what was had counts half after
SIZES: Final = (1, 8, 32, 128, 512)  # tokens that the curve is measured at


@dataclass(frozen=True)
class Wanted:
    """Whether serving is `runnable`, how many acts of training are `queued`, and whether one is `running`, at a point
    where it can pause."""

    runnable: bool
    queued: int
    running: bool


@dataclass(frozen=True)
class Had:
    """Seconds of the engine that each has had while both wanted it, faded."""

    served: float = 0.0
    trained: float = 0.0

    def and_then(self, *, served: float = 0.0, trained: float = 0.0) -> "Had":
        kept: float = 0.5 ** ((served + trained) / HALF)
        return Had(self.served * kept + served, self.trained * kept + trained)

    @property
    def share(self) -> float:
        """Training's; all of it, where nobody has had anything."""
        total = self.served + self.trained
        return self.trained / total if total > 0 else 1.0


@dataclass(frozen=True)
class Curve:
    """Seconds that a forward takes, by its tokens: measured at the start, rising, straight between two points."""

    points: tuple[tuple[int, float], ...]

    def seconds(self, tokens: int) -> float:
        low, high = self.points[0], self.points[-1]
        for one, two in pairwise(self.points):
            low, high = one, two
            if tokens <= two[0]:
                break
        if low[0] == high[0] or tokens <= self.points[0][0]:
            return self.points[0][1]
        return low[1] + (high[1] - low[1]) * (tokens - low[0]) / (high[0] - low[0])

    def room(self, tokens: int, slack: float) -> int:
        """How many tokens more a forward of `tokens` takes for at most `slack` times its seconds more: what training
        might have of a decode step. Within what was measured."""
        most, fits = self.seconds(tokens) * (1 + slack), 0
        for (a, s), (b, t) in pairwise(self.points):
            if s > most:
                break
            fits = b if t <= most else int(a + (b - a) * (most - s) / (t - s))
        return max(0, fits - tokens)


def measured(forward: Callable[[int], float], most: float, sizes: Iterable[int] = SIZES) -> Curve:
    """The curve of a `forward` that says what it took of so many tokens: the less of two, until `most` seconds are
    spent. What falls is noise, and is raised to the point before."""
    points: list[tuple[int, float]] = []
    spent = 0.0
    for tokens in sizes:
        if points and spent >= most:
            break
        first, second = forward(tokens), forward(tokens)
        spent += first + second
        points.append((tokens, max(min(first, second), points[-1][1] if points else 0.0)))
    return Curve(tuple(points))


def decide(wanted: Wanted, had: Had, step: float, floor: float) -> Word:
    """Who is next, where a `step` of serving is expected to take so many seconds and training has at least `floor` of
    what both want."""
    if not wanted.runnable:
        return "train"
    if not (wanted.queued or wanted.running):
        return "serve"
    if floor > 0 and had.and_then(served=step).share < floor:
        return "train"
    return "pause" if wanted.running else "serve"
