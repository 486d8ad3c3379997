"""Request bodies, read under a limit and after authentication. Knows bytes, not what they mean."""

from collections.abc import AsyncGenerator

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartParser
from starlette.requests import Request

from api import errors

FORM_SLACK = 64 * 1024  # boundaries, part headers and the small fields beside the file
LENGTH_DIGITS = 18  # of a content-length that is a number of bytes
CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")  # of a form: those that need no other decoder


async def limited(request: Request, limit: int, what: str) -> AsyncGenerator[bytes, None]:
    """The body's pieces, as they were sent: raises ApiError 415 for one that would have to be decompressed, and 413 as
    soon as it is known to exceed `limit` bytes, before reading on."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise errors.encoded()
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > LENGTH_DIGITS or int(declared) > limit):
        raise errors.too_large(what, limit)
    total = 0
    async for piece in request.stream():
        total += len(piece)
        if total > limit:
            raise errors.too_large(what, limit)
        yield piece


async def whole(request: Request, limit: int) -> bytes:
    return b"".join([piece async for piece in limited(request, limit, "The request body")])


async def form(request: Request, limit: int) -> FormData:
    """The fields of a multipart form with at most one file of `limit` bytes. The file waits on disk beyond 1 MiB. The
    caller closes the form."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise errors.invalid("Send the file as multipart/form-data.", "file")
    if options.get(b"charset", b"utf-8").decode("latin-1").lower() not in CHARSETS:
        # The parser would look any name up among Python's codecs, of which some are no text and some raise.
        raise errors.invalid("Send the form in UTF-8.", "file")
    body = limited(request, limit + FORM_SLACK, "The upload")
    return await MultiPartParser(request.headers, body, max_files=1, max_fields=16).parse()
