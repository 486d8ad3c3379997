"""What a forward of training takes, as a line: found where it is one, never below nothing, and soon measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker.scoring.conftest import MAX_TOKENS, Pair
from worker.scoring.cost_line import LEAST, SIZES, Line, fitted, measured, of

PART = st.floats(1e-6, 1e2)


@given(PART, PART, st.lists(st.integers(1, 10_000), min_size=2, max_size=9, unique=True))
def test_a_line_is_found(fixed: float, token: float, sizes: list[int]):
    line = fitted([(n, fixed + token * n) for n in sizes])
    assert line.error < 1e-6
    for n in sizes:
        assert line.seconds(n) == pytest.approx(fixed + token * n, rel=1e-6)
    assert line.worth == pytest.approx(line.fixed / line.token)


@given(
    st.lists(st.tuples(st.integers(1, 10_000), st.floats(1e-3, 10)), min_size=2, max_size=9, unique_by=lambda p: p[0])
)
def test_no_part_is_below_nothing_and_the_error_is_that_of_the_worst(points: list[tuple[int, float]]):
    line = fitted(points)
    assert line.fixed >= 0
    assert line.token >= 0
    assert line.error == pytest.approx(max(abs(line.seconds(n) - s) / s for n, s in points))
    assert line.sizes == len(points)


def test_the_line_through_points_that_grow_faster_than_their_tokens_begins_at_nothing():
    line = fitted([(10, 1.0), (100, 40.0)])
    assert (line.fixed, line.token > 0) == (0.0, True)
    falling = fitted([(10, 2.0), (100, 1.0)])
    assert (falling.token, falling.worth) == (0.0, 0.0)


def test_one_size_is_no_line():
    with pytest.raises(ValueError, match="two sizes"):
        fitted([(64, 1.0), (64, 2.0)])


@pytest.mark.parametrize("each, sizes", [(1e-4, len(SIZES)), (1.0, LEAST)])
def test_it_is_measured_as_long_as_there_is_time_and_never_of_too_few(each: float, sizes: int):
    asked: list[int] = []

    def forward(tokens: int) -> float:
        asked.append(tokens)
        return each + (0.5 * each if len(asked) % 2 else 0.0)  # the less of two counts

    line = measured(forward, 1.0)
    assert asked == [n for n in SIZES[:sizes] for _ in range(2)]
    assert line == Line(each, 0.0, pytest.approx(0.0, abs=1e-9), sizes)  # type: ignore[arg-type]


def test_an_engine_and_a_torch_scorer_have_one(pair: Pair):
    for scorer in (pair.vllm, pair.oracle):
        line = of(scorer, pair.modules, 512, 64, MAX_TOKENS, rank=8)
        assert line.sizes == sum(n <= MAX_TOKENS for n in SIZES)
        assert line.seconds(64) > 0
        assert line.told().keys() == {"fixed_seconds", "token_seconds", "error", "sizes"}
