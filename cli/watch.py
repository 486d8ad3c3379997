"""Following jobs while they train: what the API tells of them, and a live view. Knows the openai client only."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli import show

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

ENDED = ("succeeded", "failed", "cancelled")
RATE_SECONDS = 30.0
PLAIN_SECONDS = 10.0
BAR, WIDEST = 20, 400  # characters


def ours(thing: Any) -> dict[str, Any]:
    """What Onward adds to one of OpenAI's objects, under its one key `onward`."""
    found = (thing.model_extra or {}).get("onward")
    return found if isinstance(found, dict) else {}


def step(job: "FineTuningJob") -> int:
    """Committed steps."""
    return int(ours(job).get("step") or 0)


def total(job: "FineTuningJob") -> int:
    """Steps the job will take."""
    return int(ours(job).get("total_steps") or 0)


def tokens(job: "FineTuningJob") -> int:
    """Scored tokens paid so far."""
    return int(ours(job).get("scored_tokens") or job.trained_tokens or 0)


def best(job: "FineTuningJob") -> str | None:
    """The step with the lowest held-out loss so far, in words; None before the first was measured."""
    found, loss = ours(job).get("best_step"), ours(job).get("best_loss")
    if found is None:
        return None
    said = f"step {found}" if loss is None else f"{show.number(float(loss))} at step {found}"
    return said + (", the start" if found == 0 else "")


def ending(job: "FineTuningJob") -> str:
    """How a job that ended without success did: "was cancelled at step 33"."""
    how = "was cancelled" if job.status == "cancelled" else job.status
    why = f": {job.error.message}" if job.error and job.error.message else ""
    return f"{how} at step {step(job)}{why}"


@dataclass
class Followed:
    """One job as it was last seen; `poll` looks again. Losses are nats, tokens scored tokens, times seconds."""

    client: "OpenAI"
    job: "FineTuningJob"
    label: str
    step: int = 0
    train_loss: float | None = None
    valid_loss: float | None = None
    valid_accuracy: float | None = None
    curve: list[tuple[int, float]] = field(default_factory=list)  # step, training loss
    last_event: str | None = None
    _seen: deque[tuple[float, int, int]] = field(default_factory=deque)  # time, step, tokens

    @property
    def ended(self) -> bool:
        return self.job.status in ENDED

    @property
    def total(self) -> int:
        return total(self.job)

    def poll(self) -> "list[FineTuningJobEvent]":
        """Asks for the job and what happened since; gives the new events, oldest first."""
        jobs = self.client.fine_tuning.jobs
        self.job = jobs.retrieve(self.job.id)
        new: list[FineTuningJobEvent] = []
        for event in jobs.list_events(self.job.id, limit=100):  # newest first, page after page
            if event.id == self.last_event:
                break
            new.append(event)
        new.reverse()
        for event in new:
            self.last_event = event.id
            if event.type == "metrics" and isinstance(event.data, dict):
                self._take(event.data)
        self.step = max(self.step, step(self.job))
        self._seen.append((time.monotonic(), self.step, tokens(self.job)))
        while self._seen[-1][0] - self._seen[0][0] > RATE_SECONDS:
            self._seen.popleft()
        return new

    def _take(self, data: dict[str, Any]) -> None:
        self.step = max(self.step, int(data.get("step") or 0))
        if data.get("train_loss") is not None:
            self.train_loss = float(data["train_loss"])
            self.curve.append((self.step, self.train_loss))
        if data.get("valid_loss") is not None:
            self.valid_loss = float(data["valid_loss"])
        if data.get("valid_mean_token_accuracy") is not None:
            self.valid_accuracy = float(data["valid_mean_token_accuracy"])

    @property
    def rates(self) -> tuple[float | None, float | None]:
        """Steps and scored tokens a second over the last `RATE_SECONDS`."""
        if len(self._seen) < 2 or self.job.status != "running":
            return None, None
        (t0, s0, n0), (t1, s1, n1) = self._seen[0], self._seen[-1]
        return (s1 - s0) / (t1 - t0), (n1 - n0) / (t1 - t0)

    @property
    def left(self) -> float | None:
        """Seconds until the last step, as the service foretells it from all of the job's steps."""
        foretold = None if self.ended else self.job.estimated_finish
        return None if foretold is None else max(0.0, foretold - time.time())


def view(followed: Sequence[Followed], width: int) -> RenderableType:
    """All jobs as a table, one row each; where `width` does not hold it, a few lines each. Nothing is cut."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("job", "state", "", "step", "train loss", "held-out loss", "accuracy", "steps/s", "tokens/s", "left"):
        drawn.add_column(name, justify="left" if name in ("job", "state", "") else "right", no_wrap=True)
    drawn.add_column("best", no_wrap=True)
    for one in followed:
        steps, scored = one.rates
        drawn.add_row(
            one.label,
            show.state(one.job.status),
            ProgressBar(total=max(1, one.total), completed=one.step, width=BAR),
            f"{one.step}/{one.total}",
            show.number(one.train_loss),
            show.number(one.valid_loss),
            show.number(one.valid_accuracy),
            show.number(steps, 2),
            show.size(scored),
            show.span(one.left),
            best(one.job) or "-",
        )
    if show.out.measure(drawn, options=show.out.options.update(width=WIDEST)).maximum <= width:
        return drawn
    return Group(*(Text.from_markup("\n".join(block(one, width))) for one in followed))


def block(one: Followed, width: int) -> list[str]:
    """One job in lines of at most `width`, with markup; only a label that is longer makes a longer one."""
    lines, used = [f"[bold]{show.text(one.label)}[/]  {show.state(one.job.status)}"], width
    for part in facts(one):
        if used + 2 + len(part) > width:
            lines.append(f"  {show.text(part)}")
            used = 2 + len(part)
        else:
            lines[-1] += f"  {show.text(part)}"
            used += 2 + len(part)
    return lines


def facts(one: Followed) -> list[str]:
    """What there is to say of a job while it runs, a few words each."""
    steps, scored = one.rates
    found = best(one.job)
    return [
        f"step {one.step}/{one.total}",
        f"train loss {show.number(one.train_loss)}",
        f"held-out loss {show.number(one.valid_loss)}",
        *([f"best {found}"] if found else []),
        f"accuracy {show.number(one.valid_accuracy)}",
        f"{show.number(steps, 2)} steps/s",
        f"{show.size(scored)} scored tokens/s",
        f"{show.span(one.left)} left",
    ]


def line(one: Followed) -> str:
    """The same as one line of text, for logs and pipes. Of a job that has ended, no rate."""
    told = facts(one)[:-3] if one.ended else facts(one)
    return "  ".join([f"{one.label}: {one.job.status}", *told])


def stream(one: Followed, seconds: float = 1.0) -> None:
    """Events as they come, one JSON document a line, until the job has ended."""
    while True:
        for event in one.poll():
            typer.echo(event.model_dump_json())
        if one.ended:
            return
        time.sleep(seconds)


def follow(
    followed: Sequence[Followed],
    *,
    alive: Callable[[], None] = lambda: None,
    seconds: float = 1.0,
    messages: bool = True,
) -> None:
    """Shows the jobs until all have ended. `alive` is called at each look and may raise."""
    terminal = show.out.is_terminal
    printed = 0.0
    over_with: set[int] = set()  # ended and told, where each look adds lines
    with Live(console=show.out, auto_refresh=False, transient=False) if terminal else _Plain() as live:
        while True:
            alive()
            for one in followed:
                for event in one.poll() if not one.ended or one.last_event is None else []:
                    if messages and event.type != "metrics":
                        said = f"{one.label}: {event.message}"
                        show.out.print(said, style=LEVEL[event.level], markup=False, soft_wrap=not terminal)
            over = all(one.ended for one in followed)
            if isinstance(live, Live):
                live.update(view(followed, show.out.width), refresh=True)
            elif over or time.monotonic() - printed > PLAIN_SECONDS:
                printed = time.monotonic()
                for number, one in enumerate(followed):
                    if number not in over_with:
                        show.out.print(line(one), markup=False, soft_wrap=True)
                    if one.ended:
                        over_with.add(number)
            if over:
                return
            time.sleep(seconds)


LEVEL = {"info": "", "warn": "yellow", "error": "red"}


class _Plain:
    """Where there is no terminal to redraw."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
