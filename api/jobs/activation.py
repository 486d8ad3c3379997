"""What the rows of a job's files come to: read and tokenised as far as the activation asked for needs it.

Decides nothing (`db/contract/acting.py` does) and writes nothing.
"""

from collections.abc import Coroutine, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fastapi.concurrency import run_in_threadpool

from api import errors, missing, token_counts
from api.context import Context
from api.files import limits
from db import files
from db.contract.acting import Counted, Ids, Readings
from db.contract.refusal import Refusal
from db.contract.rows.files import parse
from db.contract.rows.formats import Row
from db.contract.rows.jsonl import BadRow
from db.contract.tokens import invocation
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import encode_rows
from db.tables import File
from db.telemetry.version import VERSION
from db.tenant import counts

T = TypeVar("T")


class Uncounted(Exception):
    """A large file would have to be counted, for which no request waits."""


class Attend(Protocol):
    """Awaits work for as long as somebody wants it."""

    async def __call__(self, work: Coroutine[Any, Any, T]) -> T: ...


@dataclass
class Tally:
    """Rows that were read for whoever counts."""

    rows: int = 0

    def of(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self.rows += 1
            yield row


@dataclass(frozen=True)
class Source:
    """A tenant's file, the request's field `param` that named it, the model whose tokens are counted, and who waits.

    Outside of a request (`outside`) whatever is not known is counted, of a deleted file too: its job reads it. Inside
    of one a large file raises Uncounted.
    """

    file: File
    param: str
    base: Base
    tenant: str
    context: Context
    attend: Attend
    outside: bool = False
    tally: Tally = field(default_factory=Tally)

    @property
    def large(self) -> bool:
        return self.file.bytes > self.context.settings.count_inside_bytes

    @property
    def turn(self) -> str:
        """In whose turn it is counted: who waits in a request does not wait for what the same tenant has outside."""
        return f"outside {self.tenant}" if self.outside else self.tenant

    @property
    def fingerprint(self) -> str:
        return f"{token_counts.RULES}:{VERSION}:{self.base.fingerprint}"


async def gathered(activation: str, text: str | None, sources: Sequence[Source]) -> Readings:
    """What `activation` and the invocation's `text` need to be known of these files, the training file first. Stops
    where the rows have already said no. Raises ApiError 404 for a file that went meanwhile, and Uncounted."""
    if activation != "all" and any(source.large and not source.outside for source in sources):
        raise Uncounted
    plain: tuple[Counted | Refusal, ...] = ()
    if activation != "answer" or text is None:
        plain = await counted(sources)
    if activation == "all" or any(isinstance(one, Refusal) for one in plain):
        return Readings(plain)
    ids = _chosen(sources, plain) if text is None else await _spelled(text, sources[0])
    if isinstance(ids, Refusal):
        return Readings(plain, ids)
    return Readings(plain, ids, await counted(sources, ids))


def _chosen(sources: Sequence[Source], plain: Sequence[Counted | Refusal]) -> Ids | Refusal:
    tails = [one.tail for one in plain if isinstance(one, Counted)]
    names = [source.param.replace("_", " ") for source in sources]
    return invocation.shared(sources[0].base, list(zip(names, tails, strict=True)))


async def _spelled(text: str, source: Source) -> Ids | Refusal:
    """By the first row. Raises BadRow where it cannot be encoded, in the name of the request's field."""

    def work() -> Generator[None, None, Ids | Refusal]:
        yield  # begun once it is this tenant's turn
        row = next(parse(_pieces(source), limits(source.context.settings)))
        encoded = next(encode_rows(source.base, [row]))
        return invocation.spelled(source.base, row, encoded, text)

    with errors.blamed(source.param):
        key = (source.file.sha256, source.base.name, text)
        return await source.attend(source.context.flights.result(key, source.turn, work))


def _pieces(source: Source) -> Iterator[bytes]:
    """The file's bytes, each piece in a transaction of its own: none is open while tokens are counted. Raises ApiError
    404 where the file goes meanwhile."""
    size = 0
    while size < source.file.bytes:
        piece = files.piece(
            source.tenant,
            lambda: source.context.transaction(source.tenant),
            source.file.id,
            size,
            deleted=source.outside,
        )
        if piece is None:
            raise missing.file(source.file.id, source.param)
        yield piece
        size += len(piece)


async def counted(sources: Sequence[Source], ids: Ids = ()) -> tuple[Counted | Refusal, ...]:
    """The files counted for an adapter that acts from `ids` on, or refused for their first row that cannot be."""
    found: list[Counted | Refusal] = []
    for source in sources:
        one = await _measured(source, ids)
        if isinstance(one, BadRow):
            found.append(Refusal(source.param, f"Line {one.line}: {one.reason}", "invalid_file_format"))
        else:
            found.append(one)
    return tuple(found)


async def _measured(source: Source, ids: Ids) -> Counted | BadRow:
    """From memory, or the database where the file is large, if it was counted before; else counted in its tenant's
    turn, once for all who ask."""
    context = source.context
    key = (source.file.sha256, source.base.name, ids)

    def work() -> Generator[None, None, Counted | BadRow]:
        rows = source.tally.of(parse(_pieces(source), limits(context.settings)))
        found = yield from token_counts.counting(source.base, rows, ids)
        context.tokens.put(key, found)
        if source.large and isinstance(found, Counted):
            with context.transaction(source.tenant) as session:
                counts.put(source.tenant, session, source.file.id, source.fingerprint, ids, found)
        return found

    known = context.tokens.get(key)
    if known is None and source.large:
        known = await run_in_threadpool(_kept, source, ids)
    if known is not None:
        return known
    if source.large and not source.outside:
        raise Uncounted
    return await source.attend(context.flights.result(key, source.turn, work))


def _kept(source: Source, ids: Ids) -> Counted | None:
    with source.context.transaction(source.tenant) as session:
        return counts.get(source.tenant, session, source.file.id, source.fingerprint, ids)
