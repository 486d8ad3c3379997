"""Request bodies, read under a limit and after authentication. Knows bytes, not what they mean."""

import asyncio
import time
from collections.abc import AsyncGenerator

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from api import errors
from api.settings import Settings

FORM_SLACK = 64 * 1024  # boundaries, part headers and the small fields beside the file
LENGTH_DIGITS = 18  # of a content-length that is a number of bytes
CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")  # of a form: those that need no other decoder


async def limited(request: Request, limit: int, what: str, settings: Settings) -> AsyncGenerator[bytes, None]:
    """The body's pieces, as they were sent; raises ApiError 415 for one that would have to be decompressed, 413 as soon
    as it is known to exceed `limit` bytes, before reading on, and 408 where it comes too slowly: not at all for
    `body_idle_seconds`, or below `min_body_rate` after as long. Only time that is waited for the client counts."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise errors.encoded()
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > LENGTH_DIGITS or int(declared) > limit):
        raise errors.too_large(what, limit)
    total, waited, source = 0, 0.0, aiter(request.stream())
    while True:
        began = time.monotonic()
        try:
            async with asyncio.timeout(settings.body_idle_seconds):
                piece = await anext(source, None)
        except TimeoutError:
            raise _slow(what, f"nothing came for {settings.body_idle_seconds:g} s") from None
        if piece is None:
            return
        waited += time.monotonic() - began
        total += len(piece)
        if waited > settings.body_idle_seconds and total < settings.min_body_rate * waited:
            raise _slow(what, f"less than {settings.min_body_rate} bytes a second")
        if total > limit:
            raise errors.too_large(what, limit)
        yield piece


def declared(request: Request) -> int:
    """Bytes of the file in a form, at least, as far as the head tells."""
    length = request.headers.get("content-length", "")
    return max(int(length) - FORM_SLACK, 0) if length.isdecimal() else 0


def _slow(what: str, why: str) -> errors.ApiError:
    headers = {"connection": "close"}  # where the body would end is not waited for
    return errors.ApiError(408, f"{what} came too slowly: {why}.", code="request_timeout", headers=headers)


async def whole(request: Request, settings: Settings) -> bytes:
    pieces = limited(request, settings.max_request_bytes, "The request body", settings)
    return b"".join([piece async for piece in pieces])


async def form(request: Request, settings: Settings) -> FormData:
    """The fields of a multipart form with at most one file of `max_file_bytes`, which waits on disk beyond 1 MiB. The
    caller closes the form."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise errors.invalid("Send the file as multipart/form-data.", "file")
    if options.get(b"charset", b"utf-8").decode("latin-1").lower() not in CHARSETS:
        # The parser would look any name up among Python's codecs, of which some are no text and some raise.
        raise errors.invalid("Send the form in UTF-8.", "file")
    body = limited(request, settings.max_file_bytes + FORM_SLACK, "The upload", settings)
    return await MultiPartParser(request.headers, body, max_files=1, max_fields=16).parse()
