"""Adapters are made once however many ask, kept by bytes, and what failed is not remembered."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.waiting import HANG, until
from worker.runs.replay import Point
from worker.serving.adapters import AHEAD, Adapters, named, size
from worker.serving.kept import Kept
from worker.serving.making import Made, Unknown
from worker.serving.starts import start
from worker.types import Layout, Module
from worker.zo.methods import mezo

SHAPE = Layout(2, 4.0, (Module("q_proj", 8, 8),))
BYTES = 4 * SHAPE.size


class Counted:
    """Makes an adapter of the step's number, once it may; says what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int | None]] = []
        self.may = threading.Event()
        self.may.set()
        self.fails = False

    def make(self, job_id: str, step: int, near: Point | None = None) -> Made:
        self.asked.append((job_id, step, None if near is None else int(near.params[0])))
        assert self.may.wait(HANG)
        if self.fails:
            raise Unknown(job_id)
        params = np.full(SHAPE.size, step, np.float32)
        return Made(SHAPE, params, Point(params, mezo.State(step)))


@pytest.fixture
def maker():
    return Counted()


def test_many_threads_ask_and_one_makes(maker):
    adapters = Adapters(maker, 1 << 20)
    maker.may.clear()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(adapters.get, "ftjob-a@3") for _ in range(8)]
        other = pool.submit(lambda: None)
        until(lambda: maker.asked, "the first making")
        maker.may.set()
        found = {id(future.result(HANG)) for future in asked}
        other.result(HANG)
    assert len(found) == 1
    assert maker.asked == [("ftjob-a", 3, None)]
    assert adapters.get("ftjob-a@3").name == named("ftjob-a", 3)
    assert (len(maker.asked), adapters.made) == (1, 1)


def test_who_waits_for_one_that_fails_is_told_and_the_next_tries_again(maker):
    adapters = Adapters(maker, 1 << 20)
    maker.may.clear()
    maker.fails = True
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(adapters.get, "ftjob-a@3") for _ in range(4)]
        until(lambda: maker.asked, "the first making")
        maker.may.set()
        for future in asked:
            with pytest.raises(Unknown):
                future.result(HANG)
    maker.fails = False
    assert adapters.get("ftjob-a@3").params[0] == 3


def test_the_one_unused_longest_makes_room_by_bytes(maker):
    adapters = Adapters(maker, 4 * BYTES)  # three of them, and a quarter for points
    for step in (1, 2, 3):
        adapters.get(f"ftjob-a@{step}")
    adapters.get("ftjob-a@1")
    adapters.get("ftjob-a@4")
    assert adapters.held() == ("ftjob-a@3", "ftjob-a@1", "ftjob-a@4")
    before = len(maker.asked)
    assert adapters.get("ftjob-a@2").params[0] == 2
    assert len(maker.asked) == before + 1


def test_what_is_larger_than_the_budget_is_worn_and_not_kept(maker):
    adapters = Adapters(maker, 0)
    assert adapters.get("ftjob-a@1").params[0] == 1
    assert adapters.held() == ()


def test_a_next_step_starts_at_the_furthest_point_that_was_made(maker):
    adapters = Adapters(maker, 1 << 20)
    for step in (5, 3, 6):
        adapters.get(f"ftjob-a@{step}")
    adapters.get("ftjob-b@1")
    assert maker.asked == [("ftjob-a", 5, None), ("ftjob-a", 3, None), ("ftjob-a", 6, 5), ("ftjob-b", 1, None)]


def test_what_is_trained_here_is_offered_and_the_newest_is_where_the_next_starts(maker):
    adapters = Adapters(maker, 1 << 20)
    for step in (8, 9):
        adapters.offer("ftjob-a", Point(np.full(SHAPE.size, step, np.float32), mezo.State(step)))
    adapters.get("ftjob-a@9")
    assert maker.asked == [("ftjob-a", 9, 9)]


def test_checkpoints_of_a_job_that_is_trained_here_start_at_points_kept_on_its_way(maker):
    adapters = Adapters(maker, 1 << 20)
    for step in range(40, 6 * AHEAD, 40):  # as commits come
        adapters.offer("ftjob-a", Point(np.full(SHAPE.size, step, np.float32), mezo.State(step)))
    for step in (5 * AHEAD, 3 * AHEAD + 1, 2 * AHEAD - 1, 30):
        adapters.get(f"ftjob-a@{step}")
    starts = [near for _, _, near in maker.asked]
    assert starts[-1] is None
    for _, step, near in maker.asked[:-1]:
        assert near is not None
        assert 0 <= step - near < AHEAD + 40
    adapters.forget("ftjob-a")
    adapters.get(f"ftjob-a@{5 * AHEAD}")
    assert maker.asked[-1][2] is None


def test_what_its_tenant_deleted_is_forgotten(maker):
    adapters = Adapters(maker, 1 << 20)
    for name in ("ftjob-a@1", "ftjob-ab@1", "ftjob-a@2"):
        adapters.get(name)
    adapters.forget("ftjob-a")
    assert adapters.held() == ("ftjob-ab@1",)
    adapters.get("ftjob-a@3")
    assert maker.asked[-1] == ("ftjob-a", 3, None)


@pytest.mark.parametrize(
    "name",
    ["base", "ftjob-a", "ftjob-a@", "ftjob-a@-1", "ftjob-a@01", "ftjob-a@1x", "../a@1", "ftjob-a@1\n", "é@1", ""],
)
def test_what_is_no_name_is_unknown_and_nothing_is_asked(maker, name):
    with pytest.raises(Unknown):
        Adapters(maker, 1 << 20).get(name)
    assert maker.asked == []


def test_bytes_are_counted_whatever_comes_and_goes():
    kept: Kept[int] = Kept(10)
    for name, bytes_ in (("a", 4), ("b", 4), ("a", 6), ("c", 11), ("d", 1)):
        kept.put(name, 0, bytes_)
    assert (kept.names(), kept.bytes, kept.evicted) == (("a", "d"), 7, 1)
    kept.drop("a")
    kept.drop("nothing")
    assert (kept.names(), kept.bytes, len(kept)) == (("d",), 1, 1)


def test_a_points_bytes_are_its_arrays():
    assert size(Point(np.zeros(3, np.float32), mezo.State(7))) == 12
    assert size((np.zeros(2, np.float64), (np.zeros(1, np.float32), None, 1.0))) == 20


def test_an_adapter_starts_at_the_last_occurrence_in_the_prompt():
    answer = Layout(2, 4.0, SHAPE.modules, invocation=(7, 9))
    assert start([1, 7, 9, 2, 7, 9, 3], answer) == 4
    assert start([7, 9], answer) == 0
    assert start([7, 8, 9], answer) is None
    assert start([], answer) is None
    assert start([7, 8, 9], SHAPE) == 0
