"""`onward receipts`: an adapter from its receipt, checked and audited, with no database, no account and no service."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import show
from cli.client import Failure, connect
from cli.local import receipt_key
from db.contract.receipts import form, signing
from db.contract.receipts.refused import Refused
from db.contract.tokens import base_model

if TYPE_CHECKING:
    from worker.adapters.receipt_audit import Rescored

app = typer.Typer(no_args_is_help=True)
File = Annotated[Path, typer.Argument(metavar="RECEIPT", help="receipt.json, a job's result file.", dir_okay=False)]
BaseFolder = Annotated[Path, typer.Option("--base", help="The base model's folder.", exists=True, file_okay=False)]
Keys = Annotated[list[str] | None, typer.Option("--key", help="A public key that is trusted (hex); once a key.")]
Profiles = Annotated[
    list[Path] | None,
    typer.Option("--profile", help="A profile that its method reads; once a file.", exists=True, dir_okay=False),
]
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
SHARE = 0.05  # of the steps, of whose forgery the chance to be found is told


@app.command()
def rebuild(
    receipt: File,
    base: BaseFolder,
    out: Annotated[Path | None, typer.Option(help="A folder for the adapter; else one named after its job.")] = None,
    key: Keys = None,
    profile: Profiles = None,
    as_json: show.Json = False,
) -> None:
    """Make the adapter of a receipt; nothing is written where it is refused."""
    with _refusals():
        found = _beside(form.read(receipt.read_bytes()), profile)
        signed = _signed(found, tuple(key or ()))
        files, weighed = _rebuilt(found, base)
    folder = out or Path(found.told[0].job)
    if folder.exists() and any(folder.iterdir()):
        raise Failure(f"{folder} is not empty", "give another with --out")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    _say(found, signed, weighed, as_json, path=str(folder))


@app.command()
def verify(
    receipt: File,
    base: BaseFolder,
    adapter: Annotated[
        Path | None, typer.Option(help=f"A PEFT folder or its {WEIGHTS}, to be compared too.", exists=True)
    ] = None,
    key: Keys = None,
    profile: Profiles = None,
    service: Annotated[bool, typer.Option("--service", help="Ask the service for its keys, and for its word.")] = False,
    as_json: show.Json = False,
) -> None:
    """Rebuild the adapter of a receipt and compare hashes, and its signature with the keys given or fetched."""
    data = receipt.read_bytes()
    with _refusals():
        found = _beside(form.read(data), profile)
        trusted = tuple(key or ()) + (_fetched() if service else ())
        signed = _signed(found, trusted)
        files, weighed = _rebuilt(found, base)
        if adapter is not None:
            named = {name: adapter / name for name in (WEIGHTS, CONFIG)} if adapter.is_dir() else {WEIGHTS: adapter}
            for name, file in named.items():
                if not file.is_file() or file.read_bytes() != files[name]:
                    raise Refused("hash", f"{file} is not that of the receipt's adapter")
    said = _asked(data) if service else None
    if said is not None and not said["valid"]:
        raise Failure(f"the service does not vouch for it: {said['reason']}")
    _say(found, signed, weighed, as_json, service=None if said is None else said["valid"])


@app.command()
def audit(
    receipt: File,
    rows: Annotated[Path, typer.Option(help="The training file.", exists=True, dir_okay=False)],
    base: BaseFolder,
    validation: Annotated[Path | None, typer.Option(help="The validation file.", exists=True, dir_okay=False)] = None,
    sample: Annotated[int, typer.Option(min=1, help="Steps to score again.")] = 50,
    seed: Annotated[int | None, typer.Option(help="Of the sample: whoever forges must not know it.")] = None,
    engine: Annotated[str, typer.Option(help="vllm, torch, or auto: vllm where it is.")] = "auto",
    key: Keys = None,
    profile: Profiles = None,
    as_json: show.Json = False,
) -> None:
    """Score random steps of a receipt again; exit code 1 where a loss is further off than the noise floor."""
    with _refusals():
        found = _beside(form.read(receipt.read_bytes()), profile)
        signed = _signed(found, tuple(key or ()))
        _, weighed = _rebuilt(found, base, weighed=True)
        result = _audited(found, rows, validation, base, sample, seed, engine)
    if not as_json:
        show.out.print(_line(result), markup=False, soft_wrap=True)
    _say(found, signed, weighed, as_json, audit=result)
    if result["largest"] > result["floor"]:
        raise Failure(
            f"step {result['at']}: its losses are {result['largest']:.3g} nats from those of the rows",
            f"the noise floor is {result['floor']:g}: the losses were not measured on these rows, or not so",
        )


@app.command()
def key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Of the private key; made where it is not there.")],
    as_json: show.Json = False,
) -> None:
    """The public key that belongs to a private one, and its id."""
    _, public = receipt_key.kept(file)
    if as_json:
        return show.as_json({"id": signing.key_id(public), "public": public})
    return show.out.print(f"{public}  (id {signing.key_id(public)})", markup=False, soft_wrap=True)


@contextmanager
def _refusals() -> Iterator[None]:
    """A refusal becomes the line that a person reads."""
    try:
        yield
    except Refused as error:
        raise Failure(f"refused ({error.code}): {error.message}") from None
    except (signing.WrongKey, base_model.UnusableBase, OSError) as error:
        raise Failure(str(error)) from None
    except ModuleNotFoundError as error:  # the API's image has no worker
        raise Failure(f"a replay needs what is not here: {error.name}", "run it in the worker's image") from None


def _signed(found: form.Receipt, trusted: tuple[str, ...]) -> str:
    """What to say of the signature. Raises Refused where keys are trusted and it is by none of them."""
    if trusted:
        return f"signed by {signing.check(found, signing.public_keys(' '.join(trusted)))}"
    if not found.signatures:
        return "unsigned"
    return f"signed by {', '.join(s.keyid for s in found.signatures)}, not checked: give --key"


def _beside(found: form.Receipt, files: list[Path] | None) -> form.Receipt:
    """With the profiles that its jobs read. Raises Refused where one is not among the files."""
    from worker.adapters import receipt

    return receipt.beside(found, [file.read_bytes() for file in files or ()])


def _rebuilt(found: form.Receipt, base: Path, weighed: bool = False) -> tuple[dict[str, bytes], bool]:
    from worker.adapters import base_files, receipt

    compared = base_files.compare(found.base, base, weighed)
    files = receipt.rebuilt(found, base_model.open_base(found.history.spec.model, str(base)))
    return files, compared


def _say(found: form.Receipt, signed: str, weighed: bool, as_json: bool, **more: Any) -> None:
    about = found.adapter.model_dump() | {"job": found.told[0].job, "signature": signed, "base_weights": weighed}
    if as_json:
        return show.as_json(about | more)
    at = f" in {more['path']}" if "path" in more else ""
    show.out.print(
        f"{found.adapter.name}: rebuilt from its receipt ({found.adapter.step} steps){at}, equal hash "
        f"{found.adapter.sha256}; {signed}" + ("" if weighed else "; the base's weights are not here: not compared"),
        markup=False, soft_wrap=True,
    )  # fmt: skip
    return None


def _fetched() -> tuple[str, ...]:
    """The public keys of the service."""
    found: Any = connect().get("/onward/receipt_keys", cast_to=object)
    return tuple(one["public"] for one in found["data"])


def _asked(data: bytes) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    said: Any = connect().post("/onward/receipts/verify", content=data, cast_to=object, options={"headers": headers})
    return dict(said)


def _audited(
    found: form.Receipt, rows: Path, validation: Path | None, folder: Path, sample: int, seed: int | None, engine: str
) -> dict[str, Any]:
    """What was scored and by what: `largest` and `floor` in nats, `at` the step of the largest, `chance` that a
    forgery of 5 % of the steps was found."""
    import random
    from importlib.util import find_spec

    from worker.adapters import receipt_audit
    from worker.quantisation import TOLERANCES, tolerance
    from worker.scoring.open import open_scorer
    from worker.settings import WorkerSettings

    base = base_model.open_base(found.history.spec.model, str(folder))
    data = receipt_audit.rows(found, base, rows.read_bytes(), validation.read_bytes() if validation else None)
    steps = found.adapter.step
    if not steps:
        raise Failure("the adapter has no steps: there is nothing to score again")
    draw = random.Random(secrets.randbits(64) if seed is None else seed)
    chosen = draw.sample(range(steps), min(sample, steps))
    which = engine if engine != "auto" else "vllm" if find_spec("vllm") else "torch"
    settings = WorkerSettings.model_validate(
        {"model": base.name, "models": {base.name: str(folder)}, "scorer": which, "canary_seconds": 3600}
    )
    scorer, _ = open_scorer(settings, base)
    try:
        worst: Rescored = max(receipt_audit.rescored(found, base, data, scorer, chosen), key=lambda one: one.difference)
    finally:
        scorer.close()
    theirs = found.versions.get("dtype", "float32")
    floor = max(tolerance(folder, settings.dtype), TOLERANCES.get(theirs, 0.0))
    return {
        "steps": steps, "sample": len(chosen), "largest": worst.difference, "at": worst.step, "floor": floor,
        "share": SHARE, "chance": receipt_audit.chance(steps, len(chosen), SHARE), "engine": which,
        "dtype": settings.dtype, "recorded_dtype": theirs,
    }  # fmt: skip


def _line(result: dict[str, Any]) -> str:
    return (
        f"{result['sample']} of {result['steps']} steps scored again ({result['engine']}, {result['dtype']}): largest "
        f"difference {result['largest']:.3g} nats (step {result['at']}), noise floor {result['floor']:g}; where "
        f"{result['share']:.0%} of the steps are forged, such a sample finds it with {result['chance']:.1%}"
    )
