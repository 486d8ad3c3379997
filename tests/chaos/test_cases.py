"""The fixed cases, each a test: what an adversary found holds now, and for whoever stands beside it."""

import pytest

from tests.chaos.cases import CASES, played


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number}-{case.name.replace(' ', '-')}")
def test_an_adversary_gains_nothing(case, ground):
    held = played(case, ground)
    if held.not_played is not None:
        pytest.skip(held.not_played)
    assert [f"{claim.what}: {claim.measured}" for claim in held.claims if not claim.held] == []
    assert held.claims
