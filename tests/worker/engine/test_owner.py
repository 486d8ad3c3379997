"""The thread that owns an engine: who goes first on it, and what becomes of whom when serving ends it."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.waiting import HANG, until
from worker.engine.owner import Owner
from worker.types import EngineGone, EngineOff


class Steps:
    """A `Served` of so many steps, each noted; `at` is called in a step."""

    def __init__(self, had: list[str], at: Callable[[], None] = lambda: None) -> None:
        self.left, self.had, self.at = 0, had, at
        self.errors: list[BaseException] = []

    @property
    def runnable(self) -> bool:
        return self.left > 0

    def step(self) -> None:
        self.left -= 1
        self.at()
        self.had.append("step")

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)

    def want(self, steps: int) -> None:
        self.left += steps


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner()
    yield made
    made.close()


def begins(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def ends(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(HANG)
        assert not thread.is_alive()


def test_all_is_done_on_one_thread_that_is_nobody_elses(owner: Owner) -> None:
    names = {owner.run(lambda: threading.current_thread().name) for _ in range(3)}
    assert names == {"engine"}
    with pytest.raises(RuntimeError, match="on its own thread"):
        owner.demand()
    owner.run(owner.demand)


def test_what_an_act_raises_is_its_askers_and_the_next_goes_on(owner: Owner) -> None:
    with pytest.raises(KeyError, match="mine"):
        owner.run(lambda: {}["mine"])
    assert owner.run(lambda: 5) == 5
    assert owner.failed is None


def test_acts_are_done_one_at_a_time_in_the_order_of_coming(owner: Owner) -> None:
    had: list[str] = []
    held, begun = threading.Event(), threading.Event()
    first = begins(lambda: owner.run(lambda: (begun.set(), held.wait(HANG))))
    assert begun.wait(HANG)
    others = []
    for number, who in enumerate("abcd"):
        others.append(begins(lambda who=who: owner.run(lambda: had.append(who))))
        until(lambda number=number: len(owner._acts) == number + 1, "the act to wait")
    assert had == []
    held.set()
    ends(first, *others)
    assert had == ["a", "b", "c", "d"]


def test_serving_goes_before_an_act_that_waited_longer_and_what_is_posted_before_the_step(owner: Owner) -> None:
    had: list[str] = []
    steps = Steps(had)
    owner.serve(steps)
    held, begun = threading.Event(), threading.Event()
    first = begins(lambda: owner.run(lambda: (begun.set(), held.wait(HANG))))
    assert begun.wait(HANG)
    second = begins(lambda: owner.run(lambda: had.append("act")))
    until(lambda: len(owner._acts) == 1, "the act to wait")
    owner.post(lambda: steps.want(2))
    owner.post(lambda: had.append("posted"))
    held.set()
    ends(first, second)
    assert had == ["posted", "step", "step", "act"]


def test_a_pause_serves_until_nothing_is_to_be_moved_and_does_what_is_posted_meanwhile(owner: Owner) -> None:
    had: list[str] = []
    steps = Steps(had, lambda: owner.post(lambda: had.append("posted")) if steps.left == 1 else None)
    owner.serve(steps)

    def act() -> str:
        assert not owner.gives_way()
        had.append("before")
        owner.post(lambda: steps.want(3))
        assert owner.gives_way()
        owner.pause()
        had.append("after")
        return "act"

    assert owner.run(act) == "act"
    assert had == ["before", "step", "step", "posted", "step", "after"]
    assert owner.pauses == 1


def test_only_the_time_in_which_training_stands_is_paused(owner: Owner) -> None:
    steps = Steps([], lambda: time.sleep(0.05))
    owner.serve(steps)
    owner.post(lambda: steps.want(3))
    until(lambda: len(steps.had) == 3, "three steps of which nobody waits for the end")
    assert owner.paused == 0.0

    def act() -> float:
        steps.want(2)
        owner.pause()
        stood = owner.paused
        time.sleep(0.05)
        return stood

    stood = owner.run(act)
    assert stood >= 0.1
    assert owner.paused == pytest.approx(stood, abs=1e-3), "its own work is no pause"
    seen: list[float] = []
    steps.at = lambda: (time.sleep(0.05), seen.append(owner.paused))
    owner.run(lambda: steps.want(2))
    assert owner.run(lambda: "waits for two steps") == "waits for two steps"
    assert owner.paused >= stood
    assert seen == sorted(seen), "and one can watch it while it stands"


@pytest.mark.parametrize("where", ["step", "posted", "runnable"])
@pytest.mark.parametrize("within", [True, False])
def test_an_error_of_serving_ends_the_owner(where: str, within: bool) -> None:
    """In a pause or between acts: streams are told once, who trains and who waits learns it, and nobody hangs."""

    class Broken(Steps):
        @property
        def runnable(self) -> bool:
            if where == "runnable" and self.left:
                raise OSError("broken")
            return super().runnable

    def breaks() -> None:
        if where == "step":
            raise OSError("broken")

    owner = Owner()
    steps = Broken([], breaks)
    owner.serve(steps)
    held, begun = threading.Event(), threading.Event()
    raised: list[Exception] = []

    def want() -> None:
        steps.want(1)
        if where == "posted":
            raise OSError("broken")

    def act() -> None:
        begun.set()
        held.wait(HANG)
        if within:
            owner.pause()

    def ask(what: Callable[[], None]) -> None:
        try:
            owner.run(what)
        except EngineOff as error:
            raised.append(error)

    first = begins(lambda: ask(act))
    assert begun.wait(HANG)
    second = begins(lambda: ask(lambda: None))
    until(lambda: len(owner._acts) == 1, "the act to wait")
    owner.post(want)
    held.set()
    ends(first, second)
    assert [str(error) for error in raised] == ["serving ended it: OSError: broken"] * (1 + within)
    assert [repr(error) for error in steps.errors] == ["OSError('broken')"]
    assert isinstance(owner.failed, OSError)
    with pytest.raises(EngineGone, match="OSError: broken"):
        owner.run(lambda: None)
    owner.post(lambda: pytest.fail("nothing is done any more"))
    owner.close()
    assert not owner._thread.is_alive()


def test_streams_that_cannot_be_told_keep_nobody_waiting() -> None:
    class Deaf(Steps):
        def failed(self, error: BaseException) -> None:
            raise ValueError("deaf") from error

    owner = Owner()
    owner.serve(Deaf([]))

    def breaks() -> None:
        raise OSError

    owner.post(breaks)
    until(lambda: owner.failed, "the end")
    with pytest.raises(EngineGone):
        owner.run(lambda: None)
    owner.close()


def test_closing_waits_for_the_act_and_refuses_who_waits() -> None:
    owner = Owner()
    held, begun = threading.Event(), threading.Event()
    done: list[str] = []
    first = begins(lambda: owner.run(lambda: (begun.set(), held.wait(HANG), done.append("act"))))
    assert begun.wait(HANG)

    def waits() -> None:
        try:
            owner.run(lambda: done.append("never"))
        except EngineGone:
            done.append("refused")

    second = begins(waits)
    until(lambda: len(owner._acts) == 1, "the act to wait")
    third = begins(owner.close)
    until(lambda: owner._closing, "the end")
    held.set()
    ends(first, second, third)
    assert sorted(done) == ["act", "refused"]
    with pytest.raises(EngineGone, match="closed"):
        owner.run(lambda: None)


def test_a_turn_within_a_turn_is_refused(owner: Owner) -> None:
    with pytest.raises(RuntimeError, match="a turn within a turn"):
        owner.run(lambda: owner.run(lambda: None))
    assert owner.run(lambda: 1) == 1


def test_who_is_torn_from_the_queue_takes_an_act_with_him_that_has_not_begun(owner: Owner, monkeypatch) -> None:
    """As a signal that ends the main thread's wait."""
    done: list[str] = []
    held, begun = threading.Event(), threading.Event()
    first = begins(lambda: owner.run(lambda: (begun.set(), held.wait(HANG))))
    assert begun.wait(HANG)
    with monkeypatch.context() as patch:

        def torn(*_: object) -> None:
            raise SystemExit

        patch.setattr("concurrent.futures._base.Future.result", torn)
        with pytest.raises(SystemExit):
            owner.run(lambda: done.append("never"))
    held.set()
    ends(first)
    assert owner.run(lambda: "next") == "next"
    assert done == []


def test_training_has_its_floor_of_what_both_want_and_goes_on_at_once_where_it_has_less(owner: Owner) -> None:
    owner.floor = 0.5
    steps = Steps([], lambda: time.sleep(0.01))
    owner.serve(steps)
    points: list[bool] = []

    def act() -> None:
        steps.want(1 << 30)
        for _ in range(40):
            time.sleep(0.005)
            points.append(owner.gives_way())
            if points[-1]:
                owner.pause()
        steps.left = 0

    owner.run(act)
    assert True in points
    assert False in points
    assert len(steps.had) > 4
    assert 0.35 < owner._had.share < 0.65
    assert owner.trained >= 40 * 0.005
    assert owner.served == pytest.approx(owner.paused, abs=0.05)


def test_serving_has_all_that_nobody_wants_to_train(owner: Owner) -> None:
    owner.floor = 0.9
    steps = Steps([])
    owner.serve(steps)
    owner.post(lambda: steps.want(200))
    until(lambda: len(steps.had) == 200, "all steps")
    assert owner.trained == 0.0


def test_who_counts_is_told_of_every_step_and_act_and_anyone_may_ask_since_when_a_step_is_at_it(owner: Owner) -> None:
    told: list[tuple[bool, bool]] = []
    since: list[float | None] = []
    steps = Steps([], lambda: since.append(owner.serving_since))
    owner.told = lambda its: told.append((its.served > 0, its.trained > 0))
    owner.serve(steps)
    before = time.monotonic()
    owner.post(lambda: steps.want(1))
    until(lambda: steps.had, "a step")
    owner.run(lambda: time.sleep(0.001))
    owner.run(lambda: None)
    assert told[:2] == [(True, False), (True, True)]
    assert since[0] is not None
    assert before <= since[0] <= time.monotonic()
    assert owner.serving_since is None
