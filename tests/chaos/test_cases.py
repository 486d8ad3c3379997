"""The fixed cases, each a test: what an adversary found holds now, and for whoever stands beside it."""

import pytest

from tests.chaos.cases import CASES, played

LONG = (4, 8, 9, 12, 13)  # a minute or half of it each: `make test-all` plays them, and `make chaos`
PLAYED = [pytest.param(case, marks=pytest.mark.slow) if case.number in LONG else case for case in CASES]


@pytest.mark.parametrize("case", PLAYED, ids=lambda case: f"{case.number}-{case.name.replace(' ', '-')}")
def test_an_adversary_gains_nothing(case, ground):
    held = played(case, ground)
    if held.not_played is not None:
        pytest.skip(held.not_played)
    assert [f"{claim.what}: {claim.measured}" for claim in held.claims if not claim.held] == []
    assert held.claims
