"""The two routes against their own description, with a worker that answers: never a 5xx but where it says so."""

import pytest
import schemathesis
from hypothesis import given

from api.app import create_app
from api.auth import CHATS
from tests.api.conftest import MODEL
from tests.api.test_schema import few, sent


@pytest.fixture(scope="module")
def document(chats):
    return schemathesis.openapi.from_dict(create_app(chats).openapi())


@pytest.mark.parametrize("path", sorted(CHATS))
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_no_request_is_answered_but_as_described(document, anna, url, worker, path, mode):
    """Most name a model that is there: they are then about their other fields."""
    operation = document[path]["POST"]
    asked = [0]

    @few
    @given(case=operation.as_strategy(generation_mode=mode))
    def request(case):
        if isinstance(case.body, dict) and "model" in case.body and len(str(case.body)) % 4:
            case.body |= {"model": MODEL}
        asked[0] += 1
        sent(case, url, anna.secret)

    request()
    assert asked[0] > 0
