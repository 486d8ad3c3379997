"""Every values set of values/, for the tests that hold for all of them."""

import pytest

from tests.helm.charts import VALUES, Object, rendered


@pytest.fixture(params=[path.stem for path in VALUES])
def objects(request: pytest.FixtureRequest) -> list[Object]:
    """The rendered objects of one values set."""
    return rendered(request.param)
