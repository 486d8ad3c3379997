"""`onward adapters`: list and download through the openai client; verify and rebuild replay journals (operator)."""

import hashlib
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import admin, show
from cli.client import Failure, connect
from cli.files import Limit, save
from cli.watch import ours
from db.ids import of_step_file, step_file
from db.session import sessions
from db.worker.journal import NotWhole

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob

    from worker.adapters.verify import Verified

app = typer.Typer(no_args_is_help=True)
Adapter = Annotated[str, typer.Argument(metavar="ADAPTER", help="Its name (ft:…, ft:…:ckpt-step-N) or its job's id.")]
WEIGHTS = "adapter_model.safetensors"


@app.command("list")
def list_(limit: Limit = 100, as_json: show.Json = False) -> None:
    """The tenant's adapters, newest first."""
    found = [m for m in connect().models.list() if m.id.startswith("ft:")][:limit]
    if as_json:
        return show.as_json(found)
    rows = ((m.id, str(ours(m).get("job", "-")), str(ours(m).get("step", "-")), show.when(m.created)) for m in found)
    return show.table(["adapter", "job", "step>", "created"], rows, empty="no adapters yet")


@app.command()
def download(
    adapter: Adapter,
    step: Annotated[int | None, typer.Option(min=0, help="That step of the job, rebuilt from its journal.")] = None,
    to: Annotated[Path | None, typer.Option("--output", "-o", help="A folder; else one named after the job.")] = None,
    as_json: show.Json = False,
) -> None:
    """Fetch an adapter as a PEFT directory: what a job has published, or its adapter after any of its steps."""
    client = connect(timeout=600)
    name, file = found(client, adapter, step)
    folder = to or Path(file.removeprefix("file-") if of_step_file(file) else _job(client, adapter).id)
    digest = fetch(client, file, folder)
    if as_json:
        return show.as_json({"adapter": name, "path": str(folder), "sha256": digest})
    return show.out.print(f"{folder}  ({WEIGHTS} sha256 {digest})", markup=False, soft_wrap=True)


@app.command()
def verify(adapter: Adapter, as_json: show.Json = False) -> None:
    """Rebuild an adapter from its journal and compare hashes; exit code 1 where they differ. One that followed from
    gradients cannot be rebuilt: what is published is held against the hash in its journal's row."""
    result = rebuilt(adapter)
    if as_json:
        show.as_json({**asdict(result), "ok": result.ok})
    elif result.ok:
        show.out.print(verdict(result), markup=False, soft_wrap=True)
    if not result.ok:
        raise Failure(verdict(result), "the journal, a file or the code that replays has changed since publication")


@app.command()
def rebuild(
    adapters: Annotated[list[str] | None, typer.Argument(metavar="ADAPTER...", help="Names or jobs' ids.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every adapter of every tenant.")] = False,
    as_json: show.Json = False,
) -> None:
    """Store adapters again in the home, each replayed from its journal; exit code 1 where a hash differs."""
    if every == bool(adapters):
        raise Failure("say which adapters to rebuild", "name some, or give --all")
    results = [rebuilt(adapter, store=True) for adapter in (_everyone() if every else adapters or ())]
    if as_json:
        show.as_json([{**asdict(result), "ok": result.ok} for result in results])
    else:
        for result in results:
            show.out.print(verdict(result), markup=False, soft_wrap=True)
    wrong = [result.name for result in results if not result.ok]
    if wrong:
        hint = "they were left as they are: the journal or the code that replays has changed since publication"
        raise Failure(f"{len(wrong)} of {len(results)} are not what was recorded: {', '.join(wrong[:5])}", hint)


def _everyone() -> list[str]:
    from db.worker.published import everyone, replayable

    with sessions(admin.settings().database_url).begin() as session:
        jobs = everyone(session)
        able = [job_id for job_id in jobs if replayable(session, job_id)]
    if left := len(jobs) - len(able):
        show.err.print(f"{left} adapters followed from gradients and cannot be rebuilt: they are left out")
    return able


def rebuilt(adapter: str, store: bool = False) -> "Verified":
    """Replays the journal of `adapter` (name, id or its job's id), with `store` into the home. Raises Failure where
    there is none."""
    try:
        from worker.adapters import verify as replays
    except ModuleNotFoundError as error:  # the API's image has no worker
        raise Failure(f"a replay needs what is not here: {error.name}", "run it in the worker's image") from None

    settings = admin.settings()
    with admin.database():
        pass  # raises where this is no operator's role
    try:
        act = replays.rebuild if store else replays.verify
        return act(settings.database_url, settings.home, adapter)
    except replays.NoSuchAdapter:
        raise Failure(f"there is no adapter {adapter!r}", "`onward adapters list` shows a tenant's") from None
    except replays.NotReplayed as error:
        hint = "its tar is kept with the files: `onward adapters verify` compares it, `download` fetches it"
        raise Failure(str(error), hint) from None
    except NotWhole as error:
        raise Failure(str(error), "restore the database's backup: the journal is what it is rebuilt from") from None


def verdict(result: "Verified") -> str:
    """One line a person can read."""
    if result.replay == "snapshots":
        return _held_against(result)
    if result.ok:
        return f"{result.name}: rebuilt from its journal ({result.step} steps), equal hash {result.sha256}"
    found = result.sha256 if result.sha256 != result.expected else f"{result.on_disk} on disk"
    return f"{result.name}: rebuilt from its journal, hash {found} is not the recorded {result.expected}"


def _held_against(result: "Verified") -> str:
    """Which promise holds of an adapter that cannot be rebuilt."""
    what = f"the published file (step {result.step})"
    said = f"{result.name}: cannot be rebuilt, for it followed from gradients; {what}"
    if result.ok:
        row = "has the hash in its journal's row" if result.in_row else "is of step 0, which has no row"
        return f"{said} {row}, and the recorded hash {result.sha256}"
    if result.in_row is False:
        return f"{said} is not what its journal's row says"
    found = result.sha256 if result.sha256 != result.expected else f"{result.on_disk} on disk"
    return f"{said} has the hash {found}, not the recorded {result.expected}"


def found(client: "OpenAI", adapter: str, step: int | None = None) -> tuple[str, str]:
    """The adapter's name and the file to fetch. Raises Failure where there is none."""
    if step is not None:
        job = _job(client, adapter).id
        return f"{job}, step {step}", step_file(job, step)
    if adapter.startswith("ftjob-"):
        job_ = client.fine_tuning.jobs.retrieve(adapter)
        published = ours(job_).get("adapter") or {}
        if not published.get("file"):
            raise Failure(f"{adapter} is {job_.status}: it has no adapter", "--step N fetches any step that was taken")
        return str(published["name"]), str(published["file"])
    model = client.models.retrieve(adapter)
    if "file" not in ours(model):
        raise Failure(f"{adapter} is a base model", "`onward adapters list` shows adapters")
    return model.id, str(ours(model)["file"])


def fetch(client: "OpenAI", file: str, folder: Path) -> str:
    """Downloads and unpacks the adapter in `file` to `folder`; gives the SHA-256 of its weights."""
    if folder.exists() and any(folder.iterdir()):
        raise Failure(f"{folder} is not empty", "give another with --output")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        archive = Path(scratch) / "adapter.tar"
        _save(client, file, archive)
        try:
            with tarfile.open(archive, "r:") as tar:  # never compressed: what is unpacked is no larger than what came
                tar.extractall(folder, filter="data")  # refuses names and links that lead out of the folder
        except tarfile.TarError as error:
            raise Failure(f"what came is no adapter: {error}") from None
    return hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()


def _save(client: "OpenAI", file: str, path: Path) -> None:
    """Waits for as long as a step is being rebuilt: each request of it waits for some seconds at the service."""
    import openai

    said = False
    while True:
        try:
            save(client, file, path)
            return
        except openai.ConflictError as error:
            if error.code != "being_rebuilt":
                raise
            if not said:
                show.err.print("being rebuilt from its journal ...")
            said = True


def _job(client: "OpenAI", adapter: str) -> "FineTuningJob":
    if adapter.startswith("ftjob-"):
        return client.fine_tuning.jobs.retrieve(adapter)
    return client.fine_tuning.jobs.retrieve(str(ours(client.models.retrieve(adapter))["job"]))
