"""`onward profiles`: made here from a base and rows, added by an operator; listed and saved through the API."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer

from cli import show
from cli.admin import database, settings
from cli.client import Failure, connect
from db import profiles
from db.contract.methods.profiled import ProfileKind
from db.contract.profiles import KINDS
from db.contract.tokens import base_model

if TYPE_CHECKING:
    from worker.profiling.make import Made

app = typer.Typer(no_args_is_help=True)
BaseFolder = Annotated[Path, typer.Option("--base", help="The base model's folder.", exists=True, file_okay=False)]
Sha256 = Annotated[str, typer.Argument(metavar="SHA256", help="Of the profile, or its first digits.")]


@app.command()
def make(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=", ".join(KINDS) + ".")],
    base: BaseFolder,
    rows: Annotated[list[Path], typer.Option(help="A training file; once a file.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    name: Annotated[str, typer.Option(help="What the profile calls the base; else its folder's name.")] = "",
    rank: Annotated[int, typer.Option(min=1, max=64, help="Of the adapters that will read it.")] = 8,
    targets: Annotated[str, typer.Option(help="Their modules, commas between.")] = "q_proj,v_proj",
    invocation: Annotated[str | None, typer.Option(help="They act from this text on (activation answer).")] = None,
    last: Annotated[int, typer.Option(min=0, help="They act on so many last layers alone (onward.layers).")] = 0,
    most: Annotated[int, typer.Option(min=2, help="Rows to use at most.")] = 200,
    share: Annotated[float, typer.Option(min=1e-6, max=1, help="mask: of the entries.")] = 0.01,
    power: Annotated[float, typer.Option(min=0.1, max=4, help="factors: their squares are (|g|^2/tr F)^p.")] = 0.5,
    steps: Annotated[int, typer.Option(min=1, help="mlp: of meta-training.")] = 300,
    rate: Annotated[float, typer.Option(min=1e-9, max=10, help="mlp: of the method that will read it.")] = 1e-3,
    eps: Annotated[float, typer.Option(min=1e-6, max=1, help="mlp: likewise.")] = 1e-2,
    batch: Annotated[int, typer.Option(min=1, help="mlp: rows a step.")] = 8,
    hidden: Annotated[int, typer.Option(min=1, max=256, help="mlp: hidden numbers of a network.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="The same rows and seed make the same file.")] = 0,
    as_json: show.Json = False,
) -> None:
    """Make a profile with the torch scorer (minutes), and print what was measured. Nothing is added anywhere."""
    if kind not in KINDS:
        raise Failure(f"there is no kind of profile {kind!r}", f"one of: {', '.join(KINDS)}")
    from db.contract.rows.jsonl import BadRow

    plan = {"steps": steps, "batch": batch, "rate": rate, "eps": eps, "hidden": hidden}
    told = {"invocation": invocation, "rows": most, "share": share, "power": power, "seed": seed, "last": last}
    opened = (name or base.resolve().name, str(base))
    with _here():
        try:
            found = _made(
                kind, opened, rank, tuple(targets.split(",")), [file.read_bytes() for file in rows], told, plan
            )
        except BadRow as error:
            raise Failure(f"line {error.line}: {error.reason}") from None
        except ValueError as error:  # a base that cannot be used, a target that is none, what cannot be computed
            raise Failure(str(error)) from None
    out.write_bytes(found.data)
    said = _read(found.data)
    if as_json:
        return show.as_json({"sha256": said["sha256"], "path": str(out), "said": list(found.said), **said})
    for line in found.said:
        show.out.print(line, markup=False, soft_wrap=True)
    return show.out.print(f"{out}  ({kind}, sha256 {said['sha256']})", markup=False, soft_wrap=True)


@app.command()
def add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A profile.", exists=True, dir_okay=False)],
    as_json: show.Json = False,
) -> None:
    """Let jobs of every tenant name it (operator: needs the database). One that could not be followed is refused."""
    data = file.read_bytes()
    with _here():
        from worker.runs.profiles import BadProfile
        from worker.runs.profiles import read as checked

        try:
            found = checked(data)
        except BadProfile as error:
            raise Failure(f"{file} is refused: {error}") from None
    models = _of(found.of.base)
    if not models:
        raise Failure(
            f"{file} was made for another base than those that are configured",
            f"it says {found.model!r}; ONWARD_MODELS names those that are",
        )
    with database() as session:
        new = profiles.add(session, found.of, found.told, data)
    told = {"sha256": found.of.sha256, "kind": found.of.kind, "models": models, "added": new}
    if as_json:
        return show.as_json(told)
    return show.out.print(f"{found.of.sha256}  {found.of.kind}" + ("" if new else "  (was there)"), soft_wrap=True)


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Option(help="Those of this base model.")] = None, as_json: show.Json = False
) -> None:
    """The profiles that a job may name."""
    found = _listed(model)
    if as_json:
        return show.as_json(found)
    lines = (
        (p["id"], p["kind"], show.text(p["model"]), str(p["rank"]), ", ".join(p["targets"]), show.when(p["created"]))
        for p in found
    )
    return show.table(["profile", "kind", "base", "rank>", "modules", "created"], lines, empty="no profiles yet")


@app.command("show")
def show_(sha256: Sha256, as_json: show.Json = False) -> None:
    """What a profile is of, and how it was made."""
    found = _one(sha256)
    if as_json:
        return show.as_json(found)
    about = found.pop("about")
    return show.pairs([(key, show.text(str(value))) for key, value in {**found, **about}.items()])


@app.command()
def save(
    sha256: Sha256,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file; else one named by its hash.")] = None,
    as_json: show.Json = False,
) -> None:
    """Fetch a profile's file, which `onward receipts --profile` asks for."""
    found = _one(sha256)
    data = connect().get(f"/onward/profiles/{found['id']}/content", cast_to=httpx.Response).content
    if hashlib.sha256(data).hexdigest() != found["id"]:
        raise Failure("what came is not the profile of this hash", "something between here and the service changes it")
    path = out or Path(f"{found['id']}.safetensors")
    path.write_bytes(data)
    if as_json:
        return show.as_json({"sha256": found["id"], "path": str(path), "bytes": len(data)})
    return show.out.print(str(path), markup=False, soft_wrap=True)


@contextmanager
def _here() -> Iterator[None]:
    """The API's image has no reader of tensors, and no torch."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Failure(f"this needs what is not here: {error.name}", "run it in the worker's image") from None


def _made(
    kind: ProfileKind,
    opened: tuple[str, str],
    rank: int,
    targets: tuple[str, ...],
    files: list[bytes],
    told: dict[str, Any],
    plan: dict[str, Any],
) -> "Made":
    from worker.profiling.make import Wanted, make
    from worker.profiling.meta import Plan

    wanted = Wanted(kind, rank, targets, **told, plan=Plan(**plan, seed=told["seed"]))
    return make(wanted, base_model.open_base(*opened), files)


def _listed(model: str | None = None) -> list[dict[str, Any]]:
    params: dict[str, object] = {"model": model} if model else {}
    found: Any = connect().get("/onward/profiles", cast_to=object, options={"params": params})
    return list(found["data"])


def _one(sha256: str) -> dict[str, Any]:
    """The one whose hash begins so. Raises Failure where there is none, or more than one."""
    alike = [p for p in _listed() if p["id"].startswith(sha256)]
    if len(alike) != 1:
        said = "more than one profile begins" if alike else "no profile begins"
        raise Failure(f"{said} with {sha256}", "`onward profiles list` shows them")
    return alike[0]


def _of(fingerprint: str) -> list[str]:
    """The configured base models that have this fingerprint."""
    at, alike = settings(), []
    for name in sorted(at.models):
        try:
            if base_model.load(name, at).fingerprint == fingerprint:
                alike.append(name)
        except base_model.UnusableBase:
            continue
    return alike


def _read(data: bytes) -> dict[str, Any]:
    from worker.runs.profiles import read

    found = read(data)
    return {"kind": found.of.kind, "sha256": found.of.sha256, **found.told}
