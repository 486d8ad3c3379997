"""One ground for all fixed cases."""

from collections.abc import Iterator

import pytest

from tests.chaos.cases import CASES, Ground
from tests.chaos.fleet import fleet


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with fleet([case.model for case in CASES]) as made:
        yield Ground(made)
