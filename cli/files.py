"""`onward files` and `onward models`: through the openai client, as any program would."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli import show
from cli.client import Failure, connect

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import FileObject

T = TypeVar("T")
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]
PLAIN = {"Accept": "text/csv, */*"}  # a table of metrics as it is, not in base64
app = typer.Typer(no_args_is_help=True)


def first(items: Iterable[T], limit: int) -> list[T]:
    """The first `limit` items; the client asks for the pages it needs."""
    return list(islice(items, limit))


def send(client: "OpenAI", path: Path) -> "FileObject":
    """Uploads the examples in `path`. Raises Failure where there is no such file."""
    if not path.is_file():
        raise Failure(f"there is no file {path}", "JSONL: one example a line (README: formats)")
    with path.open("rb") as stream:
        return client.files.create(file=(path.name, stream), purpose="fine-tune")


def save(client: "OpenAI", file_id: str, path: Path) -> int:
    """Streams a file's content to `path`, whole or not at all; gives its size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    with client.files.with_streaming_response.content(file_id, extra_headers=PLAIN) as answer:
        answer.stream_to_file(partial)
    partial.replace(path)
    return path.stat().st_size


@app.command()
def upload(path: Path, as_json: show.Json = False) -> None:
    """Upload examples (JSONL); every row is checked."""
    file = send(connect(timeout=600), path)
    if as_json:
        return show.as_json(file)
    return _pairs(file)


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
