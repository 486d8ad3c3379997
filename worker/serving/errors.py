"""Why a request is not answered, in OpenAI's error shape: our own reasons, and what vLLM's classes raise, which no
server of vLLM's is there to translate. Knows errors, no request."""

import math
import re
from dataclasses import dataclass
from typing import Any, Final

import structlog
from jinja2 import TemplateError
from pydantic import ValidationError
from vllm.entrypoints.serve import create_error_response
from vllm.exceptions import VLLMClientError

log = structlog.get_logger("worker.serving.errors")
MOST_SAID: Final = 1000  # characters
# What code that is given somebody's conversation, schema or template may raise of itself.
THEIRS: Final = (ValueError, TypeError, OverflowError, NotImplementedError, RecursionError, KeyError, TemplateError)
TOO_LONG: Final = ("input_text", "input_tokens")  # vLLM's names for a prompt
PLACES: Final = re.compile(r"\[[\d:]+\] /\S+:\d+: ")  # in xgrammar's source


@dataclass
class Refused(Exception):
    """A request ends with this: an HTTP status, and OpenAI's error. `retry_after` is in seconds."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None

    def __str__(self) -> str:
        return self.message

    @property
    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        said = self.message if len(self.message) <= MOST_SAID else f"{self.message[:MOST_SAID]} ..."
        return {"error": {"message": said, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"retry-after": str(max(1, math.ceil(self.retry_after)))}


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> Refused:
    return Refused(400, code, message, param)


def invocation_missing(text: str) -> Refused:
    message = f"This adapter answers only where {text!r} occurs in the prompt, and it does not."
    return Refused(400, "invocation_missing", message, "messages")


def overloaded(retry_after: float) -> Refused:
    message = "This model has more requests waiting than it takes. Try again later."
    return Refused(503, "overloaded", message, retry_after=retry_after)


def draining() -> Refused:
    return Refused(503, "draining", "This worker is ending and takes no new requests.", retry_after=1)


def engine_failed() -> Refused:
    return Refused(503, "engine_failed", "The engine failed; this answer is not complete.", retry_after=1)


def expired() -> Refused:
    return Refused(504, "deadline_exceeded", "The answer did not come within the time that was given for it.")


def slow() -> Refused:
    return Refused(408, "reader_too_slow", "The answer was read too slowly and is cut off.")


def refused(error: BaseException) -> Refused:
    """What an exception met while a request was read, rendered or queued amounts to. What nobody foresaw is a 500 and
    logged."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ValidationError):
        return _unfit(error)
    if isinstance(error, (VLLMClientError, *THEIRS)):
        said = create_error_response(error).model_dump()["error"]
        return vllms(said | {"message": _said(error)})
    log.error("a request failed", exc_info=error)
    return Refused(500, "internal_error", "The request failed for a reason that is not its own.")


def _said(error: BaseException) -> str:
    """Its sentence alone: vLLM's errors append names of its own parameters and what was sent."""
    return str(error.args[0]) if error.args else str(error)


def vllms(error: dict[str, Any]) -> Refused:
    """vLLM's error object as ours: its codes are HTTP's, and its names of types its own."""
    status = int(error["code"])
    if status == 501:  # what it does not implement was asked for
        status = 400
    if status >= 500:
        return Refused(500, "internal_error", "The request failed for a reason that is not its own.")
    param, message = error.get("param"), PLACES.sub("", str(error["message"])).strip()
    if status == 400 and "json schema" in message.lower():
        return Refused(status, "invalid_schema", message, "response_format")
    if param in TOO_LONG:
        return Refused(status, "context_length_exceeded", message)
    return Refused(status, "invalid_value", message, param)


def _unfit(error: ValidationError) -> Refused:
    """The first of what pydantic found, with the place where it stands."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"] if not isinstance(part, str) or part.isidentifier())
    return invalid(f"{place or 'The request'}: {first['msg']}", place or None)
