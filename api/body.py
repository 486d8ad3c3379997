"""Request bodies, read under a limit and after authentication. Knows bytes, not what they mean."""

from collections.abc import AsyncGenerator

from starlette.datastructures import FormData
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from api import errors

FORM_SLACK = 64 * 1024  # boundaries, part headers and the small fields beside the file


async def limited(request: Request, limit: int, what: str) -> AsyncGenerator[bytes, None]:
    """The body's pieces; raises ApiError 413 as soon as it is known to exceed `limit` bytes, before reading on."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise errors.too_large(what, limit)
    total = 0
    async for piece in request.stream():
        total += len(piece)
        if total > limit:
            raise errors.too_large(what, limit)
        yield piece


def declared(request: Request) -> int:
    """Bytes of the file in a form, at least, as far as the head tells."""
    length = request.headers.get("content-length", "")
    return max(int(length) - FORM_SLACK, 0) if length.isdecimal() else 0


async def whole(request: Request, limit: int) -> bytes:
    return b"".join([piece async for piece in limited(request, limit, "The request body")])


async def form(request: Request, limit: int) -> FormData:
    """The fields of a multipart form with at most one file of `limit` bytes. The file waits on disk beyond 1 MiB. The
    caller closes the form."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise errors.invalid("Send the file as multipart/form-data.", "file")
    body = limited(request, limit + FORM_SLACK, "The upload")
    return await MultiPartParser(request.headers, body, max_files=1, max_fields=16).parse()
