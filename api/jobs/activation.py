"""Which tokens a job's adapter acts on, and what the rows of its files then cost. Reads files and writes nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Final

from sqlalchemy.orm import Session

from api import errors, token_counts
from api.context import Context
from api.files import limits, pieces
from api.jobs.request import Onward
from api.token_counts import Counted, Invocation
from db import files
from db.contract.pricing import Counts
from db.contract.rows.files import parse
from db.contract.rows.jsonl import BadRow
from db.contract.tokens import invocation
from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import decoded, encode_rows
from db.tables import File

CHEAPER: Final = 4  # times that `answer` must save on a visit for "auto" to choose it: it gives up plain LoRA's reach


@dataclass(frozen=True)
class Source:
    """A tenant's file, the request's field `param` that named it, and the model whose tokens are counted."""

    file: File
    param: str
    base: Base
    tenant: str
    context: Context


@dataclass(frozen=True)
class Activation:
    """`invocation` is empty for `all`, `text` what it spells; `counts` are of the sources, in their order."""

    invocation: Invocation
    text: str | None
    counts: tuple[Counts, ...]


def settled(asked: Onward, sources: Sequence[Source]) -> Activation:
    """What `activation` and `invocation` come to for these files, the training file first. Raises ApiError 400 for an
    invocation that the rows do not have, and for a row that the model cannot be trained on."""
    wanted, text = asked.activation or "all", _text(asked)
    if wanted == "all" and text is not None:
        message = "'onward.invocation' belongs to activation 'answer', which was not asked for."
        raise errors.invalid(message, "onward.invocation", "invalid_value")
    if wanted == "answer":
        ids = _resolved(text, sources)
        return _acting(ids, text, sources, [counted(source, ids) for source in sources])
    plain = [counted(source) for source in sources]
    able = not isinstance(asked.targets, list) or not sources[0].base.everywhere_only(tuple(asked.targets))
    found = _cheaper(text, sources, plain) if wanted == "auto" and able else None
    return found or Activation((), None, tuple(one.counts for one in plain))


def _cheaper(text: str | None, sources: Sequence[Source], plain: list[Counted]) -> Activation | None:
    """`answer`, where every row can be trained with it, nothing to be learned is dropped, and it is worth it."""
    ids = errors.outcome(lambda: _resolved(text, sources), invocation.Unresolved)
    if isinstance(ids, invocation.Unresolved):
        return None
    answer = [one for source in sources if isinstance(one := measured(source, ids), Counted)]
    if len(answer) < len(sources) or any(a.targets < p.targets for a, p in zip(answer, plain, strict=True)):
        return None
    if CHEAPER * sum(answer[0].counts.visit) > sum(plain[0].counts.visit):
        return None
    return _acting(ids, text, sources, answer)


def _acting(ids: Invocation, text: str | None, sources: Sequence[Source], counts: list[Counted]) -> Activation:
    spelled = decoded(sources[0].base, ids) if text is None else text
    return Activation(ids, spelled, tuple(one.counts for one in counts))


def _text(asked: Onward) -> str | None:
    return None if asked.invocation == "auto" else asked.invocation


def _resolved(text: str | None, sources: Sequence[Source]) -> Invocation:
    """Raises Unresolved, and ApiError for a bad row."""
    if text is None:
        tails = [(source.param.replace("_", " "), counted(source).tail) for source in sources]
        return invocation.shared(sources[0].base, tails)
    source = sources[0]
    with source.context.sessions.begin() as session, errors.blamed(source.param):
        row = next(parse(_content(source, session), limits(source.context.settings)))
        encoded = next(encode_rows(source.base, [row]))
    return invocation.spelled(source.base, row, encoded, text)


def _content(source: Source, session: Session) -> Iterator[bytes]:
    content = files.content(source.tenant, session, source.file.id)
    return errors.found(content, errors.no_file(source.file.id, source.param))


def counted(source: Source, ids: Invocation = ()) -> Counted:
    """The same as `measured`; raises ApiError 400 for the row it refuses."""
    found = measured(source, ids)
    if isinstance(found, BadRow):
        raise errors.bad_row(found, source.param)
    return found


def measured(source: Source, ids: Invocation = ()) -> Counted | BadRow:
    """The file counted for an adapter that acts from `ids` on, or its first row that cannot be; from memory where this
    content was counted before. No transaction is open while its tokens are counted."""
    context, base = source.context, source.base
    key = (source.file.sha256, base.name, ids)
    known = context.tokens.get(key)
    if known is not None:
        return known
    with SpooledTemporaryFile(max_size=16 << 20) as copy:
        with context.sessions.begin() as session:
            for piece in _content(source, session):
                copy.write(piece)
        copy.seek(0)
        rows = parse(pieces(copy), limits(context.settings))
        found = errors.outcome(lambda: token_counts.count(base, rows, ids), BadRow)
    if isinstance(found, BadRow):
        found = BadRow(found.line, found.reason, found.param)  # without the frames it passed, which hold the rows
    context.tokens.put(key, found)
    return found
