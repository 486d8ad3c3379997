"""How whole sequences are cut into what attends at once."""

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.prefill import BLOCK, _parts


@given(st.lists(st.integers(1, 500), min_size=1, max_size=12), st.integers(1, 40_000))
def test_parts_are_all_tokens_in_order_and_see_few_pairs(lengths: list[int], pairs: int) -> None:
    seen: list[tuple[int, int]] = []
    for begin, end, before, upto in _parts(lengths, pairs):
        if upto is None:
            assert before == 0
            assert sum(n * (n + 1) // 2 for n in lengths[begin:end]) <= pairs
            seen += [(number, at) for number in range(begin, end) for at in range(lengths[number])]
        else:
            assert end == begin + 1
            asks = upto - before
            assert asks <= BLOCK or asks * before + asks * asks // 2 <= pairs
            seen += [(begin, at) for at in range(before, upto)]
    assert seen == [(number, at) for number, length in enumerate(lengths) for at in range(length)]


def test_a_wave_of_short_sequences_is_one_part() -> None:
    assert list(_parts([30] * 100, 50_000)) == [(0, 100, 0, None)]
