"""The bytes of files and of restored steps as answers, in pieces. Knows no route."""

import base64
from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

from fastapi.responses import StreamingResponse

from api.context import Context
from db import files
from db.tables import File, Restoration
from db.tenant import restorations

TAR, CSV, ENCODED = "application/x-tar", "text/csv", "application/octet-stream"
RESULTS: Final = {"csv": CSV, "json": "application/json", "tar": TAR}  # by their names
BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
DESCRIBED: dict[str, Any] = dict.fromkeys(("application/jsonl", ENCODED, *RESULTS.values()), BYTES)


def of_file(context: Context, tenant: str, file: File, accept: str) -> StreamingResponse:
    """As it was stored; a table of metrics in base64, as OpenAI's, where `accept` does not name its type."""
    kind, pieces = _kind(file), stream(context, tenant, file)
    first = next(pieces, b"")  # a store that is away is an answer while there still can be one
    pieces = chain([first], pieces)
    if kind == CSV and CSV not in accept:
        return _answer((file.bytes + 2) // 3 * 4, in_base64(pieces), ENCODED)
    return _answer(file.bytes, pieces, kind)


def of_step(context: Context, tenant: str, row: Restoration) -> StreamingResponse:
    """The tar of a step that was rebuilt."""
    return _answer(row.bytes, _step(context, tenant, row), TAR)


def stream(context: Context, tenant: str, file: File) -> Iterator[bytes]:
    """Pieces of a file, each read by itself: the client may read slowly, and meanwhile no connection is held. The last
    is withheld, and the answer cut short, where they are not what was stored. Raises StoreAway, ObjectLost."""
    check, start = files.Check(file), 0
    while (piece := files.piece(tenant, lambda: context.transaction(tenant), file.id, start)) is not None:
        start += len(piece)
        yield check.passed(piece)


def in_base64(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """One text without line ends, however the bytes are cut."""
    rest = b""
    for piece in pieces:
        whole = rest + piece
        cut = len(whole) - len(whole) % 3
        yield base64.b64encode(whole[:cut])
        rest = whole[cut:]
    yield base64.b64encode(rest)


def _step(context: Context, tenant: str, row: Restoration) -> Iterator[bytes]:
    number = 0
    while True:
        with context.transaction(tenant) as session:
            piece = restorations.chunk(tenant, session, row.job_id, row.step, number)
        if piece is None:
            return
        yield piece
        number += 1


def _kind(file: File) -> str:
    if file.purpose != "fine-tune-results":
        return "application/jsonl"
    return RESULTS.get(file.filename.rpartition(".")[2], ENCODED)


def _answer(size: int, pieces: Iterator[bytes], kind: str) -> StreamingResponse:
    headers = {"content-length": str(size), "x-content-type-options": "nosniff"}
    return StreamingResponse(pieces, media_type=kind, headers=headers)
