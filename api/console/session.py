"""A browser's session: the key it was given once, in a cookie that no script reads. Knows no page.

The session is the key: nothing is stored here, a key that is revoked ends its sessions at once, and what a key may not
do its session may not either. The cookie is HttpOnly and SameSite=Strict, and every form carries a token that only who
has the key can make.
"""

import hashlib
import hmac
from typing import Annotated, Final
from urllib.parse import parse_qsl

from fastapi import Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials

from api import auth, body, errors
from api.auth import Caller
from api.context import Context, Ctx

COOKIE: Final = "onward_session"
SECONDS: Final = 12 * 3600
LONGEST: Final = 256  # characters of a key that is tried
FORM_BYTES: Final = 4096  # of a form without a file


def begin(response: Response, request: Request, key: str) -> None:
    """The browser keeps `key` for this site's console, and sends it with nothing that another site asks for."""
    response.set_cookie(
        COOKIE, key, max_age=SECONDS, path=path(request), httponly=True, samesite="strict",
        secure=request.url.scheme == "https",
    )  # fmt: skip


def end(response: Response, request: Request) -> None:
    response.delete_cookie(COOKIE, path=path(request), httponly=True, samesite="strict")


def path(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}/console"


def checked(request: Request, context: Context, key: str) -> Caller:
    """Whose key it is; charged and refused as the API's own requests are. Raises ApiError 401, 403 and 429."""
    if not key or len(key) > LONGEST:
        raise errors.ApiError(401, "Give a key of your tenant.", code="invalid_api_key")
    sent = HTTPAuthorizationCredentials(scheme="Bearer", credentials=key)
    return auth.caller(request, auth.known(request, sent, context), context)


def known(request: Request, context: Ctx) -> Caller:
    """The tenant of the session's key. Raises ApiError 401 where there is no session."""
    return checked(request, context, request.cookies.get(COOKIE, ""))


async def entered(request: Request, found: Annotated[Caller, Depends(known)], context: Ctx) -> Caller:
    """The same, as one request more of the tenant's."""
    return await auth.entered(request, found, context)


async def fields(request: Request, context: Context) -> dict[str, str]:
    """Of a form without a file, read under a limit as every body is: anybody may send one to sign in.

    Raises ApiError."""
    pieces = body.limited(request, FORM_BYTES, "The form", context.settings)
    text = b"".join([piece async for piece in pieces]).decode("utf-8", "replace")
    return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=64)) if text.count("&") < 64 else {}


def token(request: Request) -> str:
    """What a form of this session carries; empty where there is none."""
    key = request.cookies.get(COOKIE, "")
    if not key:
        return ""
    return hmac.new(key.encode("utf-8", "surrogatepass"), b"onward console form", hashlib.sha256).hexdigest()


def trusted(request: Request, sent: str) -> None:
    """Raises ApiError 403 for a form that is not of this session's own pages."""
    if not hmac.compare_digest(token(request).encode(), sent.encode("utf-8", "surrogatepass")):
        raise errors.ApiError(403, "The form is not of this session: load the page again.", code="stale_form")
    same_site(request)


def same_site(request: Request) -> None:
    """Raises ApiError 403 for what another site's page sent, as browsers say themselves; from one that does not say,
    another site's request has no cookie that was set as ours is."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise errors.ApiError(403, "Sent by another site's page.", code="other_site")


Visitor = Annotated[Caller, Depends(entered)]
