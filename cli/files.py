"""`onward files` and `onward models`: through the openai client, as any program would."""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli import show
from cli.client import Failure, connect

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import FileObject

    from db.contract.rows.foreign import Source

T = TypeVar("T")
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]
PLAIN = {"Accept": "text/csv, */*"}  # a table of metrics as it is, not in base64
app = typer.Typer(no_args_is_help=True)


class From(StrEnum):
    """What a file is that is to be converted; `auto` asks each of its objects."""

    auto = "auto"
    sharegpt = "sharegpt"
    alpaca = "alpaca"


GIVEN: dict[From, "Source"] = {From.sharegpt: "sharegpt", From.alpaca: "alpaca"}


def first(items: Iterable[T], limit: int) -> list[T]:
    """The first `limit` items; the client asks for the pages it needs."""
    return list(islice(items, limit))


def send(client: "OpenAI", path: Path, source: From | None = None) -> "FileObject":
    """Uploads the examples in `path`, made chat rows where they come from a `source`. Raises Failure where there is no
    such file, or where it cannot be converted."""
    _there(path)
    if source is None:
        with path.open("rb") as stream:
            return client.files.create(file=(path.name, stream), purpose="fine-tune")
    with TemporaryFile() as made:
        rows, left_out = rewrite(path, made, source)
        _told(rows, left_out)
        made.seek(0)
        return client.files.create(file=(path.with_suffix(".jsonl").name, made), purpose="fine-tune")


def rewrite(path: Path, made: IO[bytes], source: From) -> tuple[int, int]:
    """Writes the chat rows of `path` to `made`, one after another, and gives how many there are and how many were left
    out. Raises Failure at the object that cannot be read."""
    from db.contract.rows.convert import converted
    from db.contract.rows.jsonl import BadRow

    rows = left_out = 0
    try:
        with path.open("rb") as stream:
            pieces = iter(lambda: stream.read(1 << 20), b"")
            for line in converted(pieces, GIVEN.get(source)):
                made.write(line or b"")
                rows, left_out = rows + (line is not None), left_out + (line is None)
    except BadRow as error:
        hint = "only ShareGPT and Alpaca files are converted, and arrays of rows made lines"
        raise Failure(f"object {error.line} of {path}: {error.reason}", hint) from error
    return rows, left_out


def _there(path: Path) -> None:
    if not path.is_file():
        raise Failure(f"there is no file {path}", "JSONL: one example a line (README: formats)")


def _told(rows: int, left_out: int) -> None:
    if left_out:
        show.err.print(f"{left_out} of {rows + left_out} rows have no answer to learn and are left out")


def save(client: "OpenAI", file_id: str, path: Path) -> int:
    """Streams a file's content to `path`, whole or not at all; gives its size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    with client.files.with_streaming_response.content(file_id, extra_headers=PLAIN) as answer:
        answer.stream_to_file(partial)
    partial.replace(path)
    return path.stat().st_size


@app.command()
def upload(
    path: Path,
    source: Annotated[From | None, typer.Option("--from", help="Make chat rows of it first.")] = None,
    as_json: show.Json = False,
) -> None:
    """Upload examples (JSONL); every row is checked."""
    file = send(connect(timeout=600), path, source)
    if as_json:
        return show.as_json(file)
    return _pairs(file)


@app.command()
def convert(
    path: Path,
    to: Path,
    source: Annotated[From, typer.Option("--from", help="What the file is; else each object says.")] = From.auto,
    as_json: show.Json = False,
) -> None:
    """Make chat rows (JSONL) of a ShareGPT or Alpaca file, or lines of a JSON array; nothing is sent."""
    _there(path)
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(to.name + ".part")
    try:
        with partial.open("wb") as made:
            rows, left_out = rewrite(path, made, source)
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)
    _told(rows, left_out)
    if as_json:
        return show.as_json({"rows": rows, "left_out": left_out, "path": str(to)})
    return show.out.print(f"{rows} rows in {to}")


@app.command("list")
def list_(limit: Limit = 100, purpose: str | None = None, as_json: show.Json = False) -> None:
    """The tenant's files, newest first."""
    client = connect()
    wanted: dict[str, Any] = {"purpose": purpose} if purpose else {}
    files = first(client.files.list(limit=min(limit, 100), **wanted), limit)
    if as_json:
        return show.as_json(files)
    rows = ((f.id, f.filename, f.purpose, show.size(f.bytes, "B"), show.when(f.created_at)) for f in files)
    return show.table(["id", "name", "purpose", "size>", "created"], rows, empty="no files yet")


@app.command("show")
def show_(file_id: str, as_json: show.Json = False) -> None:
    """One file."""
    file = connect().files.retrieve(file_id)
    return show.as_json(file) if as_json else _pairs(file)


@app.command()
def delete(file_id: str, as_json: show.Json = False) -> None:
    """Delete a file; a job that already runs still reads it."""
    answer = connect().files.delete(file_id)
    return show.as_json(answer) if as_json else show.out.print(f"deleted {answer.id}")


@app.command()
def content(
    file_id: str, to: Annotated[Path | None, typer.Option("--output", "-o", help="A path; else stdout.")] = None
) -> None:
    """What is in a file."""
    client = connect(timeout=600)
    if to is not None:
        show.err.print(f"{save(client, file_id, to)} bytes in {to}")
        return
    stream = typer.get_binary_stream("stdout")
    for piece in _pieces(client, file_id):
        stream.write(piece)
    stream.flush()


def _pieces(client: "OpenAI", file_id: str) -> Iterator[bytes]:
    with client.files.with_streaming_response.content(file_id, extra_headers=PLAIN) as answer:
        yield from answer.iter_bytes()


def models(as_json: show.Json = False) -> None:
    """The base models and the tenant's adapters."""
    found = list(connect().models.list())
    if as_json:
        return show.as_json(found)
    rows = ((m.id, m.owned_by, show.when(m.created)) for m in found)
    return show.table(["model", "owned by", "created"], rows, empty="no models are configured (ONWARD_MODELS)")


def _pairs(file: "FileObject") -> None:
    extra: dict[str, Any] = file.model_extra or {}
    ours = extra.get("onward") or {}
    show.pairs(
        [
            ("file", file.id),
            ("name", file.filename),
            ("purpose", file.purpose),
            ("size", show.size(file.bytes, "B")),
            ("created", show.when(file.created_at)),
            *((str(key), str(value)) for key, value in ours.items() if value is not None),
        ]
    )
