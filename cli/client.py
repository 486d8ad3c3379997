"""How the command line reaches the API: which address, which key, the unmodified openai client. Knows no SQL."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import beside

if TYPE_CHECKING:
    from openai import OpenAI

SERVICE = "service.json"  # in the home: what a running `onward up` serves, for the commands typed beside it


class Failure(Exception):
    """Something the person at the terminal can act on: one line, and a hint at what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def home() -> Path:
    """Where this machine's Onward keeps its data (ONWARD_HOME, else .onward here)."""
    return Path(os.environ.get("ONWARD_HOME", ".onward"))


def service(at: Path | None = None) -> dict[str, Any]:
    """What the `onward up` running in the home `at` wrote down; empty where none runs. Raises Failure where that is
    another user's secret."""
    path = (at or home()) / SERVICE
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    except PermissionError:
        raise Failure(f"{path} cannot be read by this user", "set ONWARD_HOME to a home of yours") from None
    return found


def connect(timeout: float = 60.0) -> "OpenAI":
    """The openai client, on ONWARD_BASE_URL and ONWARD_API_KEY or on the service running in this home."""
    from openai import OpenAI  # half a second that `onward --help` need not pay

    here = service()
    base_url = os.environ.get("ONWARD_BASE_URL") or here.get("base_url")
    api_key = os.environ.get("ONWARD_API_KEY") or here.get("api_key")
    if not (base_url and api_key) and (early := starting()) is not None:
        raise early
    if not base_url:
        raise Failure(f"no service runs in {home().resolve()}", other_home())
    if not api_key:
        raise Failure("no API key is known", "set ONWARD_API_KEY (`onward keys create TENANT` makes one)")
    return OpenAI(base_url=base_url, api_key=api_key, timeout=timeout)


def starting() -> Failure | None:
    """What to say of the service in this home while it starts; None where it is ready, or none runs."""
    up = beside.read(home())
    if up is None or (late := up.waits_for()) is None:
        return None
    return Failure(
        f"the service in {home().resolve()} is still starting: {late}", "try again; `onward doctor` looks on"
    )


def other_home() -> str:
    """A hint for whoever finds no service here: where one runs, or how to have one."""
    others = beside.elsewhere(home())
    if others:
        return f"one runs in another folder: set ONWARD_HOME={others[0]}"
    return "start one with `onward up`, or set ONWARD_BASE_URL and ONWARD_API_KEY"


def explain(error: Exception) -> Failure | None:
    """The failure a person should read for an error of the client; None when it is none of ours."""
    import openai

    if isinstance(error, openai.APIConnectionError):
        return _unreached(str(error.request.url))
    if isinstance(error, openai.AuthenticationError):
        hint = "check ONWARD_API_KEY; `onward keys create TENANT` makes a new key"
        return Failure(f"the key was refused: {_reason(error)}", hint)
    if isinstance(error, openai.NotFoundError) and error.code == "unknown_url":
        return Failure(_reason(error), "ONWARD_BASE_URL ends in /v1")
    if isinstance(error, openai.NotFoundError):
        return Failure(
            _reason(error), "another tenant's things look as if they did not exist: is the key the right one?"
        )
    if isinstance(error, openai.RateLimitError):
        return Failure(_reason(error), "wait for a job to end, or ask the operator for more")
    if isinstance(error, openai.APIStatusError):
        param = error.body.get("param") if isinstance(error.body, dict) else None
        hint = f"look at `{param}`" if param else f"HTTP {error.status_code}"
        return Failure(_reason(error), hint)
    return None


def _unreached(url: str) -> Failure:
    up = beside.read(home())
    if up is not None and up.base_url and url.startswith(up.base_url):
        lost = [c for c in up.components if c.state != "ready"]
        if (early := starting()) is not None:
            return early
        if lost:
            said = "; ".join(f"{c.name} is {c.state} ({c.died or 'no death known'})" for c in lost)
            return Failure(f"the service at {up.base_url} is not whole: {said}", "`onward doctor` says what to do")
    hint = "is it running? `onward up` starts it; ONWARD_BASE_URL points elsewhere"
    if up is None and beside.elsewhere(home()):
        hint = other_home()
    return Failure(f"cannot reach the service at {url}", hint)


def _reason(error: Any) -> str:
    body = error.body
    if isinstance(body, dict) and body.get("message"):
        return str(body["message"])
    return str(error)
