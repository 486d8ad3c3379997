"""How the command line reaches the API: which address, which key, the unmodified openai client. Knows no SQL."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    """What the `onward up` running in the home `at` wrote down; empty where none runs."""
    try:
        found: dict[str, Any] = json.loads(((at or home()) / SERVICE).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


def connect(timeout: float = 60.0) -> "OpenAI":
    """The openai client, on ONWARD_BASE_URL and ONWARD_API_KEY or on the service running in this home."""
    from openai import OpenAI  # half a second that `onward --help` need not pay

    here = service()
    base_url = os.environ.get("ONWARD_BASE_URL") or here.get("base_url")
    api_key = os.environ.get("ONWARD_API_KEY") or here.get("api_key")
    if not base_url:
        raise Failure("no service is known", "start one with `onward up`, or set ONWARD_BASE_URL and ONWARD_API_KEY")
    if not api_key:
        raise Failure("no API key is known", "set ONWARD_API_KEY (`onward keys create TENANT` makes one)")
    return OpenAI(base_url=base_url, api_key=api_key, timeout=timeout)


def explain(error: Exception) -> Failure | None:
    """The failure a person should read for an error of the client; None when it is none of ours."""
    import openai

    if isinstance(error, openai.APIConnectionError):
        hint = "is it running? `onward up` starts it; ONWARD_BASE_URL points elsewhere"
        return Failure(f"cannot reach the service at {error.request.url}", hint)
    if isinstance(error, openai.AuthenticationError):
        hint = "check ONWARD_API_KEY; `onward keys create TENANT` makes a new key"
        return Failure(f"the key was refused: {_reason(error)}", hint)
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


def _reason(error: Any) -> str:
    body = error.body
    if isinstance(body, dict) and body.get("message"):
        return str(body["message"])
    return str(error)
