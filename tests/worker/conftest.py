"""One real vLLM engine at a time, on each tiny model in turn. What a model's library loads is loaded when asked for."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.worker.scoring.conftest import Pair

ARCHITECTURES = ("opt", "llama-tied", "llama-untied", "qwen2")


@pytest.fixture(scope="session", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Pair"]:
    """The scorer and its oracle on each architecture; pytest groups the tests so that each starts once."""
    from tests.bases import tiny
    from tests.worker.scoring.conftest import MODELS, open_pair

    arch, tied = MODELS[request.param]
    yield from open_pair(tiny(arch, tmp_path_factory.getbasetemp(), tied))
