"""Adapters by name, as requests wear them: kept in memory by bytes, made once however many ask. Knows no engine.

A name is `<job>@<step>`, the job's adapter after so many committed steps. A committed step is never another, so what
was made once is right for ever, and what is dropped is made again with the same bits.
"""

import re
import threading
from concurrent.futures import Future
from dataclasses import fields, is_dataclass
from typing import Any, Protocol

import numpy as np

from worker.runs.replay import Point
from worker.serving.kept import Kept
from worker.serving.making import Made, Unknown
from worker.types import Wearable

AHEAD = 256  # steps: of a job that is trained here, a point in so many is kept, for its checkpoints to be made from
NAME = re.compile(r"([a-z]+-[a-z0-9]{1,64})@(0|[1-9]\d{0,8})")


class Makes(Protocol):
    """What `worker.serving.making.Maker` does."""

    def make(self, job_id: str, step: int, near: Point | None = None) -> Made: ...


def named(job_id: str, step: int) -> str:
    return f"{job_id}@{step}"


class Adapters:
    """At most `budget` bytes of them in memory, and of the points that steps of jobs are replayed from: of a job that
    is trained here the newest, and one in AHEAD steps before it. Any thread may ask; it waits for what it asks for,
    which may take minutes: never the engine's."""

    def __init__(self, maker: Makes, budget: int) -> None:
        self._maker = maker
        self._lock = threading.Lock()
        self._worn: Kept[Wearable] = Kept(budget * 3 // 4)
        self._points: Kept[Point] = Kept(budget - budget * 3 // 4)  # by job the newest, and by the step of a mark
        self._making: dict[str, Future[Wearable]] = {}
        self.made = 0

    def get(self, name: str) -> Wearable:
        """The adapter of this name. Raises Unknown, Unfit, and SQLAlchemyError: nothing of it is kept."""
        found = NAME.fullmatch(name)
        if found is None:
            raise Unknown(f"{name[:100]!r} names no step of a job")
        with self._lock:
            kept = self._worn.get(name)
            if kept is not None:
                return kept
            making = self._making.get(name)
            mine = making is None
            if making is None:
                making = self._making[name] = Future()
        if mine:
            self._make(name, found[1], int(found[2]), making)
        return making.result()

    def kept(self, name: str) -> Wearable | None:
        """The adapter of this name, if it is in memory. Does not wait."""
        with self._lock:
            return self._worn.get(name)

    def offer(self, job_id: str, point: Point) -> None:
        """The point of a job's last committed step, from whoever trains it: nothing of it needs to be replayed."""
        with self._lock:
            self._keep(job_id, point)

    def held(self) -> tuple[str, ...]:
        """Names of those in memory, the one unused longest first."""
        with self._lock:
            return self._worn.names()

    def forget(self, job_id: str) -> None:
        """Its tenant has deleted it."""
        with self._lock:
            self._points.drop(job_id)
            for kept in (self._points, self._worn):
                for name in kept.names():
                    if name.startswith(f"{job_id}@"):
                        kept.drop(name)

    def _make(self, name: str, job_id: str, step: int, making: Future[Wearable]) -> None:
        with self._lock:
            near = self._near(job_id, step)
        try:
            made = self._maker.make(job_id, step, near)
            wearable = Wearable(name, made.layout, made.params)
        except BaseException as error:
            with self._lock:
                del self._making[name]
            making.set_exception(error)
            return
        with self._lock:
            del self._making[name]
            self.made += 1
            self._worn.put(name, wearable, made.params.nbytes)
            if made.point is not None:
                self._keep(job_id, made.point)
        making.set_result(wearable)

    def _keep(self, job_id: str, point: Point) -> None:
        """As the newest, where it is, and as the first of its mark."""
        newest, mark = self._points.get(job_id), named(job_id, point.state.step // AHEAD)
        if newest is None or point.state.step > newest.state.step:
            self._points.put(job_id, point, size(point))
        if point.state.step >= AHEAD and self._points.get(mark) is None:
            self._points.put(mark, point, size(point))

    def _near(self, job_id: str, step: int) -> Point | None:
        """The furthest point at hand that is not after `step`."""
        newest = self._points.get(job_id)
        if newest is None or newest.state.step <= step:
            return newest
        marks = [self._points.get(named(job_id, step // AHEAD - back)) for back in (0, 1)]
        return next((point for point in marks if point is not None and point.state.step <= step), None)


def size(thing: Any) -> int:
    """Bytes of the arrays in a point: its parameters and its method's state."""
    if isinstance(thing, np.ndarray):
        return int(thing.nbytes)
    if is_dataclass(thing):
        return sum(size(getattr(thing, field.name)) for field in fields(thing))
    return sum(map(size, thing)) if isinstance(thing, tuple) else 0
