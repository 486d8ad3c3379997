"""The whole API against its own description: what the document allows, and what it does not, in requests drawn from it
and in chains of requests; never a 5xx, never an answer that the document does not have."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from schemathesis.checks import CHECKS as KNOWN
from schemathesis.checks import load_all_checks
from sqlalchemy.orm import Session, sessionmaker

from api.app import create_app
from api.auth import CHATS
from api.settings import Settings
from db.ids import new_id
from tests.api.conftest import MODEL, Client, client
from tests.api.examples import choices, jsonl, upload

load_all_checks()
CHECKS = KNOWN.get_by_names([
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "use_after_free",
])  # fmt: skip
EXAMPLES = int(os.environ.get("ONWARD_TEST_EXAMPLES", "40"))  # of each operation
few = hypothesis(
    max_examples=EXAMPLES, derandomize=True, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck), database=None,
)  # fmt: skip
many = hypothesis(few, max_examples=150)


@pytest.fixture(scope="module")
def document(settings):
    """Without metrics, which only an operator scrapes, and what is said of the process alone."""
    found = schemathesis.openapi.from_dict(create_app(settings).openapi())
    return found.exclude(path=["/metrics", "/healthz", "/readyz"])


@pytest.fixture(scope="module")
def training(anna) -> str:
    return upload(anna, *choices(4))


OPERATIONS = [
    (path, method.upper())
    for path, methods in create_app(Settings()).openapi()["paths"].items()  # opens no connection
    for method in methods
    if path.startswith("/v1/") and path not in CHATS  # without a worker they are 503s: tests/api/chat/test_schema.py
]
each = pytest.mark.parametrize("path, method", OPERATIONS, ids=lambda part: part)


def sent(case: Any, url: str, secret: str, learn: Callable[[dict[str, Any]], None] | None = None) -> None:
    answer = case.call_and_validate(
        base_url=url.removesuffix("/v1"), headers={"Authorization": f"Bearer {secret}"}, checks=CHECKS
    )
    if learn is not None and answer.status_code == 200 and answer.headers["content-type"] == ["application/json"]:
        learn(answer.json())


def answered(document: Any, path: str, method: str, rule: hypothesis, training: str, **of: str) -> None:
    """Every second request for a job names a file and a model that are there: it is then about its other fields."""
    operation = document[path][method]
    for mode in schemathesis.GenerationMode:

        @rule
        @given(case=operation.as_strategy(generation_mode=mode))
        def request(case: Any) -> None:
            if isinstance(case.body, dict) and "training_file" in case.body and len(str(case.body)) % 2:
                case.body |= {"model": MODEL, "training_file": training}
            sent(case, **of)

        request()


@each
def test_no_request_is_answered_but_as_described(document, path, method, anna, url, training):
    answered(document, path, method, few, url=url, secret=anna.secret, training=training)


@pytest.mark.slow
@each
def test_nor_is_one_of_many(document, path, method, anna, url, training):
    answered(document, path, method, many, url=url, secret=anna.secret, training=training)


@dataclass
class Chain:
    """Requests of a new tenant, each of which may name what those before it made, deleted or ended."""

    document: Any
    url: str
    who: Client
    known: dict[str, list[str]] = field(
        default_factory=lambda: {"file_id": [], "job_id": [], "upload_id": [], "sha256": [], "name": [MODEL]}
    )

    def step(self, data: st.DataObject, path: str, method: str) -> None:
        case = data.draw(self.document[path][method].as_strategy())
        picks = iter(data.draw(st.lists(st.integers(0, 99), min_size=3, max_size=3)))
        for name in case.path_parameters or {}:
            self.fill(case.path_parameters, name, next(picks))
        if isinstance(case.body, dict) and path.endswith("/jobs"):
            case.body |= {"model": MODEL, "onward": {"steps": 2, "batch_size": 2, "rank": 2}, "validation_file": None}
            for optional in ("hyperparameters", "method", "seed", "integrations"):
                case.body.pop(optional, None)
            self.known.setdefault("training_file", self.known["file_id"])
            self.fill(case.body, "training_file", next(picks))
        if isinstance(case.body, dict) and path.endswith("/files") and next(picks) % 4:
            case.body |= {"purpose": "fine-tune", "file": jsonl(*choices(2))}
        sent(case, self.url, self.who.secret, self.learn)

    def fill(self, values: dict[str, Any], name: str, pick: int) -> None:
        """Mostly something known."""
        ids = self.known[name]
        if ids and pick % 5:
            values[name] = ids[pick % len(ids)]

    def learn(self, answer: dict[str, Any]) -> None:
        kind = {"file": "file_id", "fine_tuning.job": "job_id", "upload": "upload_id"}.get(answer.get("object", ""))
        if kind is not None and answer["id"] not in self.known[kind]:
            self.known[kind].append(answer["id"])


def chained(document: Any, factory: sessionmaker[Session], url: str, rule: hypothesis) -> None:
    @rule
    @given(data=st.data(), steps=st.lists(st.sampled_from(OPERATIONS), min_size=3, max_size=9))
    def requests(data: st.DataObject, steps: list[tuple[str, str]]) -> None:
        chain = Chain(document, url, client(factory, url, new_id("chain-")))
        for path, method in [("/v1/files", "POST"), ("/v1/fine_tuning/jobs", "POST"), *steps]:
            chain.step(data, path, method)

    requests()


def test_no_chain_of_requests_is_either(document, factory, url):
    chained(document, factory, url, few)


@pytest.mark.slow
def test_nor_is_a_chain_of_many(document, factory, url):
    chained(document, factory, url, many)
