"""Adapters on a forward that is computed in pieces of rows."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.lora import Worn


@st.composite
def forwards(draw) -> tuple[list[Worn], list[tuple[int, int]]]:
    """Adapters one after the other with bare rows between them, and the pieces of all rows."""
    worn, at = [], 0
    for _ in range(draw(st.integers(0, 4))):
        at += draw(st.integers(0, 3))
        adapters, each = draw(st.integers(1, 4)), draw(st.integers(1, 5))
        a = torch.arange(at, at + adapters).view(adapters, 1, 1)
        worn.append(Worn(at, at + adapters * each, adapters, {"x": (a, -a)}, 2.0))
        at += adapters * each
    rows, size = at + draw(st.integers(0, 3)), draw(st.integers(1, 7))
    return worn, [(start, min(rows, start + size)) for start in range(0, rows, size)]


def spelt(worn: list[Worn], offset: int = 0) -> dict[int, tuple[int, int]]:
    """What each row wears."""
    out: dict[int, tuple[int, int]] = {}
    for one in worn:
        each, rest = divmod(one.stop - one.start, one.adapters)
        assert rest == 0
        a, b = one.pairs["x"]
        assert len(a) == len(b) == one.adapters
        for n in range(one.adapters):
            for row in range(one.start + n * each, one.start + (n + 1) * each):
                assert row + offset not in out
                out[row + offset] = (int(a[n]), int(b[n]))
    return out


@given(forwards())
def test_every_row_wears_in_its_piece_what_it_wears_in_the_whole(made) -> None:
    worn, pieces = made
    found: dict[int, tuple[int, int]] = {}
    for start, stop in pieces:
        parts = [part for one in worn for part in one.of(start, stop)]
        assert all(0 <= part.start < part.stop <= stop - start for part in parts)
        found |= spelt(parts, start)
    assert found == spelt(worn)


def test_adapters_that_are_whole_in_a_piece_stay_together() -> None:
    a = torch.arange(6).view(6, 1, 1)
    parts = list(Worn(2, 26, 6, {"x": (a, a)}, 1.0).of(5, 24))
    assert [(p.start, p.stop, p.adapters) for p in parts] == [(0, 1, 1), (1, 17, 4), (17, 19, 1)]
