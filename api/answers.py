"""What is answered to what may be raised below: one function a kind. Knows no request and no resource."""

import math
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.flights import Crowded, Ending
from api.rates import Exceeded
from db.store.seam import ObjectLost, StoreAway
from db.tenant.jobs import IdempotencyConflict
from db.tenant.parents import NoParent
from db.tenant.quotas import QuotaExceeded
from db.tenant.restorations import TooManyAsked
from db.tenant.storage import StorageExceeded
from db.transitions import WrongState

INVALID = "invalid_request_error"
# The openai client repeats 409, 429 and 5xx unless told not to: repeating cannot help in these cases.
FINAL = {"x-should-retry": "false"}
SPOKEN = {"bytes": "bytes uploaded", "keys": "wrong API keys from your address", "tokens": "served tokens"}


class ApiError(Exception):
    """An answer other than 2xx. `param` is the path of the request's field at fault, as `onward.rank`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param, self.code = status, message, kind, param, code
        self.headers = headers or {}


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(400, message, param=param, code=code)


def sentence(error: Any) -> str:
    """What pydantic says of an error, in our words where a rule of ours found it."""
    return str(error["msg"]).removeprefix("Value error, ")


def no_quota(error: QuotaExceeded) -> ApiError:
    message = f"You exceeded your quota of {error}."
    return ApiError(429, message, kind="insufficient_quota", code="insufficient_quota", headers=FINAL)


def no_storage(error: StorageExceeded) -> ApiError:
    message = f"Your files and results hold {error.used} of {error.limit} bytes, and {error.asked} more do not fit."
    return ApiError(413, message, kind="insufficient_quota", code="storage_quota_exceeded", headers=FINAL)


def used_key(_: IdempotencyConflict) -> ApiError:
    message = "This Idempotency-Key was used before with a different request body."
    return ApiError(409, message, code="idempotency_key_in_use", headers=FINAL)


def wrong_state(error: WrongState) -> ApiError:
    message = f"The job is {error.state}: it cannot be {error.wanted}."
    if error.state == "validating_files":
        message = (
            f"The job's files are being validated: until it is queued it can be cancelled, and not {error.wanted}."
        )
    return ApiError(409, message, code="wrong_state", headers=FINAL)


def wrong_parameter(error: RequestValidationError) -> ApiError:
    first = error.errors()[0]
    param = str(first["loc"][-1])
    return invalid(f"Invalid value for '{param}': {sentence(first)}", param, "invalid_value")


def http(error: HTTPException) -> ApiError:
    headers = dict(error.headers or {})
    match error.status_code:
        case 404:
            return ApiError(404, "Unknown request URL.", code="unknown_url")
        case 405:
            return ApiError(405, "Not allowed: method.", code="method_not_allowed", headers=headers)
    return ApiError(error.status_code, error.detail, headers=headers)


def crowded(error: Crowded) -> ApiError:
    message = f"Too many requests of yours wait for their tokens to be counted (at most {error.most}): try again."
    return ApiError(429, message, kind="requests", code="rate_limit_exceeded", headers={"retry-after": "5"})


def exceeded(error: Exceeded) -> ApiError:
    taken = error.taken
    what = SPOKEN.get(taken.kind, taken.kind)
    seconds = math.ceil(taken.reset)
    message = f"Rate limit reached: {taken.limit} {what} a minute. Try again in {seconds} s."
    headers = {"retry-after": str(seconds)} | (taken.headers if taken.kind in ("requests", "tokens") else {})
    return ApiError(429, message, kind="requests", code="rate_limit_exceeded", headers=headers)


def no_parent(error: NoParent) -> ApiError:
    return ApiError(404, f"{error.job_id} has no model to go on from.", param="model", code="model_not_found")


def too_many_asked(error: TooManyAsked) -> ApiError:
    message = f"{error.most} steps of yours are being rebuilt, which is the most at one time: try again."
    return ApiError(429, message, kind="requests", code="rate_limit_exceeded", headers={"retry-after": "5"})


def ending(_: Ending) -> ApiError:
    message = "This process ends. Nothing was changed; try again."
    return ApiError(503, message, kind="server_error", code="unavailable", headers={"retry-after": "1"})


def away(_: Exception) -> ApiError:
    message = "The database is not available at the moment. Nothing was changed; try again."
    return ApiError(503, message, kind="server_error", code="unavailable", headers={"retry-after": "1"})


def store_away(error: StoreAway) -> ApiError:
    message = "The store of files is not available at the moment. Nothing was changed; try again."
    seconds = str(max(1, math.ceil(error.seconds)))
    return ApiError(503, message, kind="server_error", code="unavailable", headers={"retry-after": seconds})


def lost(_: ObjectLost) -> ApiError:
    message = "The bytes of this file are lost: upload it again."
    return ApiError(500, message, kind="server_error", code="file_lost", headers=FINAL)
