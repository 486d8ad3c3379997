"""`onward jobs`: through the openai client, as any program would."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import show, watch
from cli.client import Failure, connect, service
from cli.files import Limit, first, send
from cli.watch import ours
from db.contract import methods
from db.contract.objectives import OBJECTIVES

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob

app = typer.Typer(no_args_is_help=True)
JobId = Annotated[str, typer.Argument(metavar="JOB")]


@app.command()
def submit(
    training: Annotated[str, typer.Argument(metavar="FILE", help="A JSONL file to upload, or the id of one (file-…).")],
    model: Annotated[str | None, typer.Option(help="Base model; the only one served where there is one.")] = None,
    validation: Annotated[str | None, typer.Option(help="Held-out examples: a path or an id.")] = None,
    method: Annotated[str | None, typer.Option(help="auto, or one of `onward methods`.")] = None,
    objective: Annotated[str | None, typer.Option(help=" or ".join(OBJECTIVES) + ".")] = None,
    rank: int | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    suffix: Annotated[str | None, typer.Option(help="Part of the adapter's name.")] = None,
    on_divergence: Annotated[
        str | None, typer.Option(help="stop, restart (from the best step at half the rate) or continue.")
    ] = None,
    max_restarts: Annotated[int | None, typer.Option(help="Restarts at most; then it stops.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Evaluations without a better one, after which it stops.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other key of `onward`, e.g. eps=0.01.")
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE")] = None,
    follow: Annotated[bool, typer.Option("--watch", help="Stay until it has ended.")] = False,
    as_json: show.Json = False,
) -> None:
    """Create a job. What is left out is "auto": the preset for the model and task."""
    client = connect(timeout=600)
    asked = {
        "method": method,
        "objective": objective,
        "rank": rank,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "on_divergence": on_divergence,
        "max_restarts": max_restarts,
        "patience": patience,
        **{key: _value(text) for key, text in map(_pair, settings or ())},
    }
    optional: dict[str, Any] = {
        "validation_file": _file(client, validation) if validation else None,
        "suffix": suffix,
        "seed": seed,
        "metadata": dict(map(_pair, metadata or ())) or None,
    }
    job = client.fine_tuning.jobs.create(
        model=model or _only_model(client),
        training_file=_file(client, training),
        extra_body={"onward": {key: value for key, value in asked.items() if value is not None}},
        **{key: value for key, value in optional.items() if value is not None},
    )
    if follow:
        return _watch(client, job, as_json)
    if as_json:
        return show.as_json(job)
    _pairs(job)
    return show.err.print(f"onward jobs watch {job.id}", style="dim")


@app.command("list")
def list_(
    limit: Limit = 20,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only jobs that carry it.")] = None,
    as_json: show.Json = False,
) -> None:
    """The tenant's jobs, newest first."""
    client = connect()
    wanted: dict[str, Any] = {"metadata": dict(map(_pair, metadata))} if metadata else {}
    jobs = first(client.fine_tuning.jobs.list(limit=min(limit, 100), **wanted), limit)
    if as_json:
        return show.as_json(jobs)
    rows = (
        (j.id, show.state(j.status), j.model, _steps(j), show.size(watch.tokens(j)), show.when(j.created_at))
        for j in jobs
    )
    return show.table(["id", "state", "model", "step>", "tokens>", "created"], rows, empty="no jobs yet")


@app.command("show")
def show_(job_id: JobId, as_json: show.Json = False) -> None:
    """One job, its checkpoints and its last events."""
    client = connect()
    job = client.fine_tuning.jobs.retrieve(job_id)
    checkpoints = first(client.fine_tuning.jobs.checkpoints.list(job_id, limit=10), 10)
    events = first(client.fine_tuning.jobs.list_events(job_id, limit=10), 10)
    if as_json:
        return show.as_json({"job": job, "checkpoints": checkpoints, "events": events})
    _pairs(job)
    rows = (
        (str(c.step_number), show.number(c.metrics.valid_loss), show.number(c.metrics.valid_mean_token_accuracy))
        for c in checkpoints
    )
    show.table(["checkpoint>", "held-out loss>", "accuracy>"], rows, empty="no checkpoints yet")
    for event in reversed(events):
        show.out.print(f"{show.when(event.created_at)}  {event.message}", markup=False, style=watch.LEVEL[event.level])
    return None


@app.command("watch")
def watch_(job_id: JobId, as_json: show.Json = False) -> None:
    """Follow a job until it has ended; exit code 1 unless it succeeded. With --json, one event a line."""
    client = connect()
    _watch(client, client.fine_tuning.jobs.retrieve(job_id), as_json)


@app.command()
def cancel(job_id: JobId, as_json: show.Json = False) -> None:
    """End a job; its best checkpoint is kept."""
    _said(connect().fine_tuning.jobs.cancel(job_id), as_json)


@app.command()
def pause(job_id: JobId, as_json: show.Json = False) -> None:
    """Stop a job at its next step; `resume` goes on from there."""
    _said(connect().fine_tuning.jobs.pause(job_id), as_json)


@app.command()
def resume(job_id: JobId, as_json: show.Json = False) -> None:
    """Queue a paused job again."""
    _said(connect().fine_tuning.jobs.resume(job_id), as_json)


def _watch(client: "OpenAI", job: "FineTuningJob", as_json: bool) -> None:
    one = watch.Followed(client, job, job.id)
    watch.stream(one) if as_json else watch.follow([one])
    if one.job.status != "succeeded":
        raise Failure(f"{one.job.id} {watch.ending(one.job)}", f"`onward jobs show {one.job.id}`")
    if not as_json:
        stopped = ours(one.job).get("stopped")
        early = f" (stopped at step {stopped['step']}: {stopped['reason']})" if stopped else ""
        show.out.print(f"adapter {one.job.fine_tuned_model}, best step {watch.best(one.job)}{early}", markup=False)


def _said(job: "FineTuningJob", as_json: bool) -> None:
    if as_json:
        return show.as_json(job)
    wish = ours(job).get("wish")
    asked = f" ({wish} asked: the worker obeys at its next step)" if wish else ""
    return show.out.print(f"{job.id} {show.state(job.status)}{asked}")


def _pairs(job: "FineTuningJob") -> None:
    extra = ours(job)
    spec: dict[str, Any] = extra.get("spec") or {}
    adapter, how = spec.get("adapter") or {}, spec.get("method") or {}
    files = [(name, value) for name in ("training_file", "validation_file") if (value := getattr(job, name))]
    show.pairs(
        [
            ("job", job.id),
            ("state", show.state(job.status)),
            ("model", job.model),
            ("adapter", job.fine_tuned_model or "-"),
            *files,
            ("created", show.when(job.created_at)),
            ("finish", show.when(job.finished_at or job.estimated_finish)),
            *_told(extra),
            ("steps", _steps(job)),
            ("best held-out loss", watch.best(job) or "-"),
            *([("drift", f"{drift:.4f} nats a token")] if (drift := extra.get("drift")) is not None else []),
            ("scored tokens", f"{watch.tokens(job)} of {extra.get('price_tokens', '-')}"),
            ("objective", str(spec.get("objective", "-"))),
            ("method", _method(how)),
            *([("why", str(chosen["why"]))] if (chosen := extra.get("chosen")) else []),
            ("adapter of", _adapter(adapter, extra.get("invocation"))),
            ("a step", f"{spec.get('batch_size', '-')} rows, evaluated every {spec.get('eval_every', '-')} steps"),
            *([("error", f"{job.error.code}: {job.error.message}")] if job.error and job.error.message else []),
        ]
    )


def _told(extra: dict[str, Any]) -> list[tuple[str, str]]:
    """What the service foretells of the job, and says of its rows."""
    takes, held = extra.get("estimate"), extra.get("held_out")
    repeated = extra.get("repeated_rows")
    guess = "" if takes and takes["measured"] else " (a guess: no worker that lives has measured it)"
    return [
        *([("ends in", f"about {show.span(takes['seconds'])}{guess}")] if takes else []),
        *([("held out", f"{held['rows']} of {held['of']} rows")] if held else []),
        *([("repeated rows", f"{repeated}, each charged as a row")] if repeated else []),
    ]


def _adapter(spec: dict[str, Any], invocation: str | None) -> str:
    """The adapter's settings, and from which text on it acts where it is not all."""
    kept = {key: value for key, value in spec.items() if key not in {"activation", "invocation"}}
    acts = [f"acting from the last {invocation!r} on"] if spec.get("activation") == "answer" else []
    return ", ".join([*(f"{key} {value}" for key, value in kept.items()), *acts])


def _method(how: dict[str, Any]) -> str:
    """The method by name and the settings that matter to it."""
    how = methods.stored(how)
    unused: set[str] = {"sgd": {"momentum", "beta2"}, "momentum": {"beta2"}, "scalar": {"momentum"}}.get(
        str(how.get("optimizer")), set()
    )
    rest = [f"{key} {value}" for key, value in how.items() if key not in {"name", *unused} and value is not None]
    return ", ".join([str(how.get("name", "-")), *rest])


def _steps(job: "FineTuningJob") -> str:
    return f"{watch.step(job)}/{watch.total(job)}"


def _file(client: "OpenAI", path_or_id: str) -> str:
    return path_or_id if path_or_id.startswith("file-") else send(client, Path(path_or_id)).id


def _only_model(client: "OpenAI") -> str:
    served = service().get("models") or []
    names = list(served) or [m.id for m in client.models.list() if not m.id.startswith("ft:")]
    if len(names) != 1:
        raise Failure("which base model?", f"--model, one of: {', '.join(names) or 'none is configured'}")
    return str(names[0])


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise Failure(f"{text!r} is not KEY=VALUE")
    return key, value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
