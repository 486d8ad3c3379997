"""The one thread that touches an engine: training waits its turn on it, serving goes first. Knows threads and times; no
engine, no trials and no requests."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

import structlog

from worker.engine.controller import Had, Wanted, decide
from worker.engine.standing import Standing
from worker.types import EngineGone

log = structlog.get_logger("worker.engine.owner")
T = TypeVar("T")


class Served(Protocol):
    """What is served beside training. All of it is called on the engine's thread only."""

    @property
    def runnable(self) -> bool:
        """Whether a request waits that a step would move. Asked at every point where training can pause."""

    def step(self) -> None:
        """One step of vLLM's scheduler, its outputs handed on. What it raises is the end of the engine."""

    def failed(self, error: BaseException) -> None:
        """The engine has ended: every stream gets an error. Called once, and nothing after it."""


class Owner:
    """The thread of one engine, from construction to `close`; whatever uses the engine is handed to it.

    Training is `run`, one act after the other in the order of coming. What serving asks for is done first: between two
    acts, and within one wherever it calls `pause`. An exception out of serving ends the owner: `failed` is set, streams
    are told, and training raises EngineGone from then on.

    `floor` is training's share of the time in which both want the engine (`worker.engine.controller`). `served` and
    `trained` are the seconds that each has had, `pauses` how often an act gave way; `told` is called with the owner
    after every step and act, to count them.
    """

    def __init__(self, floor: float = 0.0) -> None:
        self.floor = floor
        self.told: Callable[[Owner], None] = lambda _: None
        self.served = self.trained = 0.0
        self.pauses = 0
        self._had, self._step = Had(), 0.0  # of both while both wanted it; what the last step took
        self._looked: float | None = None  # when training was last let go on though serving wanted it
        self._running = False
        self._busy: float | None = None  # since when serving is at one step or one thing posted
        self._changed = threading.Condition()
        self._acts: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._posted: deque[Callable[[], None]] = deque()
        self._served: Served | None = None
        self._failed: BaseException | None = None
        self._closing = False
        self._standing = Standing()
        self._thread = threading.Thread(target=self._live, name="engine", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> BaseException | None:
        """What ended the owner; None while it lives."""
        return self._failed

    @property
    def paused(self) -> float:
        """Seconds up to now that training has stood, waiting or within an act, for serving. For any thread to ask."""
        return self._standing.seconds

    @property
    def serving_since(self) -> float | None:
        """time.monotonic() at which serving began the step, or whatever was posted, that it is at; None where it is at
        none. For any thread to ask."""
        return self._busy

    def run(self, act: Callable[[], T]) -> T:
        """What `act` returns or raises, done on the engine's thread when its turn comes; waits for it. A wait that a
        signal ends takes an act that has not begun with it. Raises EngineGone once failed or closed, RuntimeError on
        the engine's own thread, which would wait for itself."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a turn within a turn: this is the engine's thread")
        future: Future[T] = Future()
        with self._changed:
            if self._failed is not None or self._closing:
                raise self._gone()
            self._acts.append((future, act))
            self._standing.want(1)
            self._changed.notify_all()
        try:
            return future.result()
        finally:
            future.cancel()  # of no effect on what is done
            with self._changed:
                self._standing.want(-1)

    def post(self, act: Callable[[], None]) -> None:
        """Short work of serving's, done on the engine's thread before the next step, also in a pause. Never waits; once
        failed or closed it is left undone. What it raises ends the engine."""
        with self._changed:
            if self._failed is None and not self._closing:
                self._posted.append(act)
                self._changed.notify_all()

    def serve(self, served: Served) -> None:
        """Step this from now on."""
        with self._changed:
            self._served = served
            self._changed.notify_all()

    def demand(self) -> None:
        """Raises RuntimeError on any thread but the engine's: asked by what uses the engine, so that nothing goes past
        it."""
        if threading.current_thread() is not self._thread:
            raise RuntimeError("the engine is used on its own thread only")

    def gives_way(self) -> bool:
        """On the engine's thread: whether serving is to have its way now. Raises EngineGone where asking fails."""
        try:
            return bool(self._posted) or self._goes_first()
        except BaseException as error:
            self._end(error)
            raise self._gone() from error

    def pause(self) -> None:
        """On the engine's thread, within an act that has put its state aside: serving has its way. Raises EngineGone
        where that ends the engine."""
        self.pauses += 1
        self._give_way()

    def close(self) -> None:
        """End the thread after what it is at, and wait for it. What still waits raises EngineGone."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _live(self) -> None:
        try:
            while self._awaited():
                self._give_way()
                self._train()
        except EngineGone:
            return
        except BaseException as error:
            self._end(error)
        self._refuse_acts()

    def _awaited(self) -> bool:
        """Returns when there is something to do: False for ending."""
        with self._changed:
            self._changed.wait_for(lambda: self._failed is not None or self._closing or self._acts or self.gives_way())
            return not self._closing and self._failed is None

    def _train(self) -> None:
        """The next act, if any."""
        with self._changed:
            future, act = self._acts.popleft() if self._acts else (None, None)
        if future is None or act is None or not future.set_running_or_notify_cancel():
            return
        begun, stood = time.monotonic(), self.paused
        self._running, self._looked = True, None
        try:
            result = act()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            self._running = False
            self.trained += time.monotonic() - begun - (self.paused - stood)
            self.told(self)

    def _goes_first(self) -> bool:
        """Whether a step of serving is next. Where training is let go on all the same, the time that it has until this
        is asked again is entered as had."""
        if self._served is None or not self._served.runnable:
            self._looked = None
            return False
        now = time.monotonic() if self.floor else 0.0
        if self._looked is not None:
            self._had = self._had.and_then(trained=now - self._looked)
        wanted = Wanted(True, len(self._acts), self._running)
        word = decide(wanted, self._had, self._step, self.floor)
        self._looked = now if word == "train" else None
        return word != "train"

    def _give_way(self) -> None:
        """Do what is posted and step what is served, for as long as it goes first. Raises EngineGone where that ends
        the engine."""
        try:
            if not self.gives_way():
                return
            self._serves(True)
            while self._posted or self._goes_first():
                while self._posted:
                    self._busy = time.monotonic()
                    self._posted.popleft()()
                self._one_step()
        except EngineGone:
            raise
        except BaseException as error:
            self._end(error)
            raise self._gone() from error
        finally:
            self._busy = None
            self._serves(False)

    def _one_step(self) -> None:
        if self._served is None or not self._served.runnable:
            return
        self._busy = begun = time.monotonic()
        self._served.step()
        self._step = time.monotonic() - begun
        self.served += self._step
        if self._standing.wanted:
            self._had = self._had.and_then(served=self._step)
        self.told(self)

    def _serves(self, serving: bool) -> None:
        with self._changed:
            self._standing.serves(serving)

    def _end(self, error: BaseException) -> None:
        log.exception("serving ended the engine")
        with self._changed:
            self._failed = error
            self._posted.clear()
        self._refuse_acts()
        if self._served is not None:
            try:
                self._served.failed(error)
            except Exception:
                log.exception("streams were not told")

    def _refuse_acts(self) -> None:
        with self._changed:
            waiting, self._acts = self._acts, deque()
        for future, _ in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(self._gone())

    def _gone(self) -> EngineGone:
        error = self._failed
        return EngineGone("it is closed" if error is None else f"serving ended it: {type(error).__name__}: {error}")
