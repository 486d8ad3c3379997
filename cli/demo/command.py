"""`onward demo`: two tenants, two jobs, one engine, the unmodified openai client, and proof of what came out."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import show, watch
from cli.adapters import fetch, found, rebuilt, verdict
from cli.client import Failure
from cli.demo import datasets, talk
from cli.demo.curves import draw
from cli.demo.peft_loss import Held, held_out
from cli.local.demo_model import DEMO_MODEL
from cli.local.processes import waiting
from cli.local.stack import Stack, running, terminable
from cli.local.up import Home, demo_models
from db.tenant import keys

if TYPE_CHECKING:
    from openai import OpenAI

# The same tokens by another engine: float32 sums in another order move a loss by less than this, and may flip a row
# whose two best choices are that close.
LOSS_TOLERANCE, FLIPPED_ROWS = 5e-3, 2


@dataclass(frozen=True)
class Task:
    """What one tenant asks for. `onward` is all that its request adds to OpenAI's; the rest is the preset. With the
    preset's steps, held-out accuracy must rise by `gain`."""

    tenant: str
    name: str
    gain: float
    onward: dict[str, Any] = field(default_factory=dict)


TASKS = (  # one adapter of each activation, in one engine
    Task("ada", "sentiment", gain=0.1, onward={"activation": "answer"}),
    Task("ben", "topic", gain=0.0, onward={"rank": 4}),
)


@dataclass
class Entry:
    """A task's client, its files and its job as it is followed; afterwards what was found."""

    task: Task
    client: "OpenAI"
    valid: Path
    followed: watch.Followed
    curve: list[tuple[int, float, float]] = field(default_factory=list)  # step, held-out loss, accuracy
    problems: list[str] = field(default_factory=list)


def demo(
    home: Home = Path(".onward"),
    steps: Annotated[int | None, typer.Option(help="Fewer or more steps than the presets'.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service up at the end, until Ctrl-C.")] = False,
    chat: Annotated[bool, typer.Option("--chat", help="A third job: ten conversations, asked of its adapter.")] = False,
) -> None:
    """The main job end to end: train two tenants' adapters at once and prove what came out. About a quarter hour."""
    home, begun = home.resolve(), time.monotonic()
    # The check with transformers runs beside a worker: GNU OpenMP, read when torch is imported, is not to spin for it.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    folder = home / "demo" / time.strftime("%Y%m%d-%H%M%S")
    with terminable():
        try:
            models = demo_models(home)
            data = datasets.write(home / "demo" / "data")
            with running(home, models, port=0, autograd=chat) as stack:
                stack.publish()
                show.err.print(f"set-up took {show.span(time.monotonic() - begun)}")
                entries = [submit(stack, task, data, steps) for task in TASKS]
                talks = [talk.submit(connected(stack, talk.TENANT), home / "demo" / "data")] if chat else []
                trained = time.monotonic()
                followed = [entry.followed for entry in entries] + [one.followed for one in talks]
                watch.follow(followed, alive=stack.insist)
                show.out.print(f"training took {show.span(time.monotonic() - trained)}")
                for entry in entries:
                    examine(stack, entry, folder)
                for one in talks:
                    talk.examine(one, stack.models[DEMO_MODEL], folder)
                report(entries, folder, presets=steps is None)
                while keep:
                    stack.tend()
                    time.sleep(0.5)
        except KeyboardInterrupt:
            raise Failure("interrupted: everything was stopped") from None
    problems = [f"{entry.task.name}: {problem}" for entry in entries for problem in entry.problems]
    problems += [f"{talk.NAME}: {problem}" for one in talks for problem in one.problems]
    if problems:
        raise Failure("the demo did not hold: " + "; ".join(problems), f"logs are in {home / 'logs'}")


def connected(stack: Stack, name: str) -> "OpenAI":
    """The tenant of this name and a key of its own, as a client."""
    with stack.sessions.begin() as session:
        tenant = keys.find(session, name) or keys.create(session, name)
        key = keys.create_key(session, tenant.id)[1]
    from openai import OpenAI

    return OpenAI(base_url=stack.base_url, api_key=key)


def submit(stack: Stack, task: Task, data: dict[str, Path], steps: int | None) -> Entry:
    """What any program with an openai client would do."""
    client = connected(stack, task.tenant)
    training, valid = data[f"{task.name}_train"], data[f"{task.name}_valid"]
    with training.open("rb") as rows, valid.open("rb") as held:
        training_file = client.files.create(file=rows, purpose="fine-tune")
        validation_file = client.files.create(file=held, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=DEMO_MODEL,
        training_file=training_file.id,
        validation_file=validation_file.id,
        suffix=task.name,
        seed=0,
        extra_body={"onward": {**task.onward, **({"steps": steps} if steps else {})}},
    )
    price = watch.ours(job).get("price_tokens")
    show.out.print(f"{task.tenant}: {task.name} is {job.id}, {show.size(price)} scored tokens in all", markup=False)
    return Entry(task, client, valid, watch.Followed(client, job, task.name))


def examine(stack: Stack, entry: Entry, folder: Path) -> None:
    """Fetches the adapter, rebuilds it from its journal and judges it from outside; notes every problem."""
    job, name = entry.followed.job, entry.task.name
    show.out.print(f"\n[bold]{name}[/]")
    points = entry.client.fine_tuning.jobs.checkpoints.list(job.id, limit=100)
    entry.curve = sorted(
        (p.step_number, float(p.metrics.valid_loss or 0), float(p.metrics.valid_mean_token_accuracy or 0))
        for p in points
    )
    if job.status != "succeeded":
        entry.problems.append(f"it ended as {job.status}: {job.error.message if job.error else ''}")
        return
    digest = fetch(entry.client, found(entry.client, job.id)[1], folder / name)
    result = rebuilt(job.id)
    show.out.print(verdict(result), markup=False, soft_wrap=True)
    if not result.ok or result.sha256 != digest:
        entry.problems.append("the adapter is not what its journal says")
    spec = watch.ours(job)["spec"]
    step = watch.ours(job)["adapter"]["step"]
    with waiting(f"loading {folder / name} with PEFT in transformers"):
        outside = held_out(stack.models[DEMO_MODEL], folder / name, entry.valid, spec["eval_rows"])
    entry.problems += compare(outside, {point[0]: point[1:] for point in entry.curve}[step])


def compare(outside: Held, service: tuple[float, float]) -> list[str]:
    """The adapter's held-out values by transformers beside the service's; what is too far apart."""
    loss, accuracy = service
    show.out.print(
        f"the same adapter in PEFT: held-out accuracy {outside.accuracy:.3f} (service {accuracy:.3f}), "
        f"loss {outside.loss:.4f} (service {loss:.4f}), {outside.rows} rows",
        soft_wrap=True,
    )
    flipped = abs(outside.accuracy - accuracy) * outside.rows
    problems = []
    if flipped > FLIPPED_ROWS + 1e-6:
        problems.append(f"PEFT's accuracy differs by {flipped:.0f} rows")
    if not abs(outside.loss - loss) < LOSS_TOLERANCE:
        problems.append(f"PEFT's loss differs by {abs(outside.loss - loss):.4f}")
    return problems


def report(entries: list[Entry], folder: Path, presets: bool) -> None:
    """The table, the picture and where the adapters are; notes what did not get better as it should."""
    rows = []
    for entry in entries:
        if not entry.curve:
            continue
        done = watch.ours(entry.followed.job).get("adapter") or {}
        best = next((p for p in entry.curve if p[0] == done.get("step")), entry.curve[-1])
        first = entry.curve[0]
        if not best[1] < first[1]:
            entry.problems.append("the held-out loss did not fall")
        if presets and best[2] - first[2] < entry.task.gain:
            entry.problems.append(f"held-out accuracy rose by {best[2] - first[2]:.3f}, not by {entry.task.gain}")
        rows.append(
            [
                *(entry.task.tenant, entry.task.name, str(best[0])),
                *(f"{first[1]:.4f}", f"{best[1]:.4f}", f"{first[2]:.3f}", f"{best[2]:.3f}"),
            ]
        )
    columns = ["tenant", "job", "best step>", "loss before>", "after>", "accuracy before>", "after>"]
    show.table(columns, rows, empty="nothing was trained", title="\nHeld out")
    curves = {entry.task.name: (entry.followed.curve, entry.curve) for entry in entries}
    folder.mkdir(parents=True, exist_ok=True)
    show.out.print(f"curves: {draw(curves, folder / 'curves.png')}", markup=False, soft_wrap=True)
    for entry in entries:
        if entry.followed.job.status == "succeeded":
            show.out.print(f"adapter: {folder / entry.task.name}", markup=False, soft_wrap=True)
