"""What the log says of requests that failed: what we answer on purpose is a line, what nobody foresaw has its place."""

from fastapi import FastAPI
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from api import errors
from api.answers import ApiError

app = FastAPI()
errors.install(app)


@app.get("/refused")
def refused() -> None:
    try:
        raise OSError("no route to the store")
    except OSError as error:
        raise ApiError(503, "Try again.", kind="server_error", code="unavailable") from error


@app.get("/unforeseen")
def unforeseen() -> None:
    raise RuntimeError("nobody foresaw this")


def log_of(path: str) -> dict[str, object]:
    with capture_logs() as lines:
        answer = TestClient(app, raise_server_exceptions=False).get(path)
    assert answer.status_code == lines[0]["status"]
    assert len(lines) == 1
    return dict(lines[0])


def test_a_refusal_of_ours_is_one_line_with_its_cause() -> None:
    line = log_of("/refused")
    assert (line["event"], line["log_level"], line["code"]) == ("request_refused", "warning", "unavailable")
    assert line["cause"] == "OSError: no route to the store"
    assert "Traceback" not in str(line)


def test_what_nobody_foresaw_is_said_with_its_place() -> None:
    line = log_of("/unforeseen")
    assert (line["event"], line["log_level"]) == ("request_failed", "error")
    assert "nobody foresaw this" in str(line["exception"])
    assert "in unforeseen" in str(line["exception"])
