"""What the rows of a job's files come to: read and tokenised as far as the activation asked for needs it.

Decides nothing (`db/contract/acting.py` does) and writes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile

from sqlalchemy.orm import Session

from api import errors, missing, token_counts
from api.context import Context
from api.files import limits, pieces
from db import files
from db.contract.acting import Counted, Ids, Readings
from db.contract.refusal import Refusal
from db.contract.rows.files import parse
from db.contract.rows.jsonl import BadRow
from db.contract.tokens import invocation
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import encode_rows
from db.tables import File


@dataclass(frozen=True)
class Source:
    """A tenant's file, the request's field `param` that named it, and the model whose tokens are counted."""

    file: File
    param: str
    base: Base
    tenant: str
    context: Context


def gathered(activation: str, text: str | None, sources: Sequence[Source]) -> Readings:
    """What `activation` and the invocation's `text` need to be known of these files, the training file first. Stops
    where the rows have already said no. Raises ApiError 404 for a file that went meanwhile."""
    plain: tuple[Counted | Refusal, ...] = ()
    if activation != "answer" or text is None:
        plain = tuple(counted(source) for source in sources)
    if activation == "all" or any(isinstance(one, Refusal) for one in plain):
        return Readings(plain)
    ids = _chosen(sources, plain) if text is None else _spelled(text, sources[0])
    if isinstance(ids, Refusal):
        return Readings(plain, ids)
    return Readings(plain, ids, tuple(counted(source, ids) for source in sources))


def _chosen(sources: Sequence[Source], plain: Sequence[Counted | Refusal]) -> Ids | Refusal:
    tails = [one.tail for one in plain if isinstance(one, Counted)]
    names = [source.param.replace("_", " ") for source in sources]
    return invocation.shared(sources[0].base, list(zip(names, tails, strict=True)))


def _spelled(text: str, source: Source) -> Ids | Refusal:
    """By the first row. Raises BadRow where it cannot be encoded, in the name of the request's field."""
    with source.context.transaction(source.tenant) as session, errors.blamed(source.param):
        row = next(parse(_content(source, session), limits(source.context.settings)))
        encoded = next(encode_rows(source.base, [row]))
    return invocation.spelled(source.base, row, encoded, text)


def _content(source: Source, session: Session) -> Iterator[bytes]:
    content = files.content(source.tenant, session, source.file.id)
    return errors.found(content, missing.file(source.file.id, source.param))


def counted(source: Source, ids: Ids = ()) -> Counted | Refusal:
    """The file counted for an adapter that acts from `ids` on, or refused for its first row that cannot be."""
    found = _measured(source, ids)
    if isinstance(found, BadRow):
        return Refusal(source.param, f"Line {found.line}: {found.reason}", "invalid_file_format")
    return found


def _measured(source: Source, ids: Ids) -> Counted | BadRow:
    """From memory where this content was counted before. No transaction is open while its tokens are counted."""
    context, base = source.context, source.base
    key = (source.file.sha256, base.name, ids)
    known = context.tokens.get(key)
    if known is not None:
        return known
    with SpooledTemporaryFile(max_size=16 << 20) as copy:
        with context.transaction(source.tenant) as session:
            for piece in _content(source, session):
                copy.write(piece)
        copy.seek(0)
        found = token_counts.count(base, parse(pieces(copy), limits(context.settings)), ids)
    context.tokens.put(key, found)
    return found
