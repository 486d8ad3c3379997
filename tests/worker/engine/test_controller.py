"""Who has the engine next, as a function of who wants it and who has had it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.controller import HALF, Curve, Had, Wanted, decide, measured

wanted = st.builds(Wanted, runnable=st.booleans(), queued=st.integers(0, 3), running=st.booleans())
seconds = st.floats(0, 100, allow_nan=False)
had = st.builds(Had, served=seconds, trained=seconds)
floors = st.floats(0, 0.99)


@given(wanted, had, st.floats(1e-4, 1), floors)
def test_the_word_follows_from_who_wants_it(who: Wanted, had: Had, step: float, floor: float) -> None:
    word = decide(who, had, step, floor)
    if not who.runnable:
        assert word == "train"
    elif not (who.queued or who.running):
        assert word == "serve"
    else:
        assert word in ("train", "pause" if who.running else "serve")
        if floor == 0:
            assert word != "train", "without a floor nobody is kept waiting for training"


@given(had, st.floats(1e-4, 1), floors)
def test_training_that_has_more_is_not_let_before_where_it_was_not_with_less(had: Had, step: float, floor: float):
    both = Wanted(True, 1, True)
    if decide(both, had, step, floor) == "pause":
        assert decide(both, Had(had.served, had.trained + 1), step, floor) == "pause"
        assert decide(both, had, step / 2, floor) == "pause"


@given(st.floats(0.05, 0.9), st.floats(0.01, 0.5), st.floats(0.001, 0.05))
def test_both_that_always_want_it_have_it_by_the_floor(floor: float, step: float, stretch: float) -> None:
    """Training asked at every stretch, serving a step at a time: neither starves, and the share comes to the floor."""
    both, had, served, trained = Wanted(True, 1, True), Had(), 0.0, 0.0
    while served + trained < 20 * HALF:
        if decide(both, had, step, floor) == "train":
            had, trained = had.and_then(trained=stretch), trained + stretch
        else:
            had, served = had.and_then(served=step), served + step
    assert served > 0
    assert trained / (served + trained) >= floor - 0.02
    assert trained / (served + trained) <= floor + (step + stretch) / HALF + 0.02


@given(st.lists(st.tuples(seconds, seconds), max_size=20))
def test_what_was_had_fades(turns: list[tuple[float, float]]) -> None:
    now = Had()
    for served, trained in turns:
        now = now.and_then(served=served, trained=trained)
        assert 0 <= now.share <= 1
    gone = now.and_then(trained=20 * HALF)
    assert gone.served <= now.served * 2**-19


@given(st.lists(st.floats(1e-4, 10), min_size=1, max_size=5), st.integers(1, 1000), st.floats(0, 1))
def test_a_curve_rises_and_its_room_is_what_fits(times: list[float], tokens: int, slack: float) -> None:
    took = iter([t for t in times for _ in (0, 1)])
    curve = measured(lambda _: next(took), 1e9, (1, 8, 32, 128, 512)[: len(times)])
    assert [t for t, _ in curve.points] == list((1, 8, 32, 128, 512)[: len(times)])
    assert all(a <= b for (_, a), (_, b) in zip(curve.points, curve.points[1:], strict=False))
    assert curve.seconds(tokens) <= curve.seconds(tokens + 1) + 1e-9
    room = curve.room(tokens, slack)
    assert room == 0 or curve.seconds(tokens + room) <= curve.seconds(tokens) * (1 + slack) + 1e-9


def test_a_curve_by_hand() -> None:
    curve = Curve(((1, 0.040), (8, 0.044), (32, 0.100)))
    assert curve.seconds(1) == 0.040
    assert curve.seconds(20) == pytest.approx(0.072)
    assert curve.seconds(56) == pytest.approx(0.156), "beyond what was measured it goes on as it went"
    assert curve.room(1, 0.1) == 7
    assert curve.room(1, 0.05) == 3
    assert Curve(((1, 0.5),)).seconds(100) == 0.5


def test_measuring_ends_where_it_would_be_dear() -> None:
    asked: list[int] = []

    def forward(tokens: int) -> float:
        asked.append(tokens)
        return 0.6

    assert measured(forward, 1.0).points == ((1, 0.6),)
    assert asked == [1, 1]
