"""Whose turn it is, among threads that wait for one engine."""

import threading
from collections.abc import Callable, Iterator

import pytest

from worker.engine.turns import Turns, Use

SECONDS = 30.0  # after which a thread that should have come has not


class Told(threading.Condition):
    """Lets a test know that a thread has its place in the queue: the lock is held until the wait begins."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = threading.Semaphore(0)

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        self.waits.release()
        return super().wait_for(predicate, timeout)


class Queue:
    """Threads that each want one turn, in a known order of coming."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.told = self.turns._changed = Told()
        self.had: list[str] = []
        self.threads: list[threading.Thread] = []

    def comes(self, who: str, use: Use) -> None:
        def want() -> None:
            with self.turns.taken(use):
                self.had.append(who)

        self.threads.append(threading.Thread(target=want))
        self.threads[-1].start()
        assert self.told.waits.acquire(timeout=SECONDS)

    def passes(self) -> None:
        for thread in self.threads:
            thread.join(SECONDS)
            assert not thread.is_alive()


@pytest.fixture
def queue() -> Iterator[Queue]:
    made = Queue()
    yield made
    made.passes()


def test_one_at_a_time_and_of_one_use_who_came_first(queue: Queue) -> None:
    with queue.turns.taken("scoring"):
        assert queue.told.waits.acquire(timeout=SECONDS)
        for who in "abcd":
            queue.comes(who, "scoring")
        assert queue.had == []
    queue.passes()
    assert queue.had == ["a", "b", "c", "d"]


def test_serving_goes_before_scoring_that_waited_longer(queue: Queue) -> None:
    with queue.turns.taken("serving"):
        assert queue.told.waits.acquire(timeout=SECONDS)
        for who, use in (("wave", "scoring"), ("step", "serving"), ("wave 2", "scoring"), ("step 2", "serving")):
            queue.comes(who, use)  # type: ignore[arg-type]
    queue.passes()
    assert queue.had == ["step", "step 2", "wave", "wave 2"]


def test_a_turn_within_a_turn_is_refused_and_the_first_is_kept(queue: Queue) -> None:
    with queue.turns.taken("scoring"):
        assert queue.told.waits.acquire(timeout=SECONDS)
        with pytest.raises(RuntimeError, match="has the engine for scoring"), queue.turns.taken("serving"):
            pass
        queue.comes("later", "serving")
        assert queue.had == []
        queue.turns.demand("scoring")
    queue.passes()
    assert queue.had == ["later"]


def test_a_turn_that_fails_is_given_back() -> None:
    turns = Turns()
    with pytest.raises(KeyError), turns.taken("scoring"):
        raise KeyError
    with turns.taken("serving"):
        pass


def test_who_is_torn_from_the_queue_keeps_nobody_waiting(queue: Queue) -> None:
    class Ends(Told):
        """As a signal that ends a wait."""

        def wait_for(self, *_: object) -> bool:
            raise SystemExit

    queue.turns._changed = Ends()
    with pytest.raises(SystemExit), queue.turns.taken("serving"):
        pass
    queue.turns._changed = queue.told
    queue.comes("scores", "scoring")
    queue.passes()
    assert queue.had == ["scores"]


def test_what_uses_the_engine_can_demand_a_turn_of_its_own_thread_and_use() -> None:
    turns, refused = Turns(), []

    def elsewhere() -> None:
        try:
            turns.demand("scoring")
        except RuntimeError:
            refused.append("thread")

    with turns.taken("scoring"):
        turns.demand("scoring")
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(SECONDS)
        with pytest.raises(RuntimeError, match="serving without a turn"):
            turns.demand("serving")
    assert refused == ["thread"]
    with pytest.raises(RuntimeError, match="scoring without a turn"):
        turns.demand("scoring")
