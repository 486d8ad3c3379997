"""The demo's third job: ten conversations, every setting left to the service, and whether the adapter answers them."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cli import show, watch
from cli.adapters import fetch, found
from cli.demo import chat
from cli.demo.decoding import answers
from cli.local.demo_model import DEMO_MODEL
from cli.local.processes import waiting

if TYPE_CHECKING:
    from openai import OpenAI

TENANT, NAME = "cyd", "chat"
LEARNED: Final = 8  # of the ten answers, to the letter


@dataclass
class Talk:
    """The job as it is followed, and what was wrong."""

    client: "OpenAI"
    followed: watch.Followed
    problems: list[str] = field(default_factory=list)


def submit(client: "OpenAI", folder: Path) -> Talk:
    """Ten conversations, and nothing said of how to learn them."""
    with chat.write(folder).open("rb") as rows:
        training_file = client.files.create(file=rows, purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=DEMO_MODEL, training_file=training_file.id, suffix=NAME, seed=0)
    chosen = watch.ours(job)["chosen"]
    said = f"{TENANT}: {NAME} is {job.id}, by {chosen['method']} ({chosen['why']})"
    show.out.print(said, markup=False, soft_wrap=True)
    return Talk(client, watch.Followed(client, job, NAME))


def examine(talk: Talk, model_folder: str, folder: Path) -> None:
    """Fetches the adapter and asks it what its rows ask, beside the base model; notes what it did not learn."""
    job, begun = talk.followed.job, time.monotonic()
    show.out.print(f"\n[bold]{NAME}[/]")
    if job.status != "succeeded":
        talk.problems.append(f"it ended as {job.status}: {job.error.message if job.error else ''}")
        return
    fetch(talk.client, found(talk.client, job.id)[1], folder / NAME)
    with waiting(f"asking {folder / NAME} with PEFT in transformers"):
        before, after = answers(model_folder, folder / NAME, chat.rows())
    rows = [
        [show.text(question), show.text(wanted), show.text(mine), show.text(theirs), "yes" if mine == wanted else "no"]
        for (question, wanted), theirs, mine in zip(chat.CONVERSATIONS, before.texts, after.texts, strict=True)
    ]
    columns = ["asked", "its row answers", "the adapter answers", "the base answers", "equal"]
    show.table(columns, rows, empty="nothing was asked")
    equal = sum(row[-1] == "yes" for row in rows)
    show.out.print(
        f"{equal} of {len(rows)} answers are its rows' to the letter; loss {before.loss:.3f} -> {after.loss:.3f} nats "
        f"a token; asked in {show.span(time.monotonic() - begun)}",
        soft_wrap=True,
    )
    if equal < LEARNED:
        talk.problems.append(f"{equal} of {len(rows)} answers are its rows', not {LEARNED}")
    if not after.loss < before.loss:
        talk.problems.append("the loss did not fall")
