"""One short walk through a running service with the `openai` client as it comes: `make up`, Compose and pods alike.

    python -m tests.containers.smoke URL KEY          # such as http://127.0.0.1:8000/v1 sk-onward-…

Prints what it found as JSON; exit status 1, with one sentence, where a promise was not kept.
"""

import hashlib
import io
import json
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

import openai
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from openai.types.fine_tuning import FineTuningJob

T = TypeVar("T")
WAIT = 600.0  # seconds for a worker to be there, and for a job to end
ENDED = ("succeeded", "failed", "cancelled")
REVIEWS = (("a joy", 1), ("a bore", 0), ("warm and funny", 1), ("dull from the first minute", 0))
METHOD = {"name": "mezo", "estimator": "two_point", "queries": 1, "learning_rate": 1e-3, "eps": 1e-2}


class Broken(Exception):
    """A promise that the service did not keep, in one sentence."""


@dataclass(frozen=True)
class Found:
    """`first_step` and `whole` in seconds from the request for the job; `sha256` of the adapter's weights; the two
    answers as they came."""

    base: str
    adapter: str
    job: str
    steps: int
    first_step: float
    whole: float
    sha256: str
    base_says: str
    adapter_says: str


def walk(client: OpenAI, steps: int = 20) -> Found:
    """Lists, uploads, trains, downloads, chats, and is refused what must be refused. Raises Broken."""
    base = _until(lambda: _base(client), "a base model")
    refused(client)
    begun = time.monotonic()
    job = submit(client, base, steps)
    first = _until(lambda: _step(client, job.id) >= 1, "the first step") and time.monotonic() - begun
    job = ended(client, job.id)
    whole = time.monotonic() - begun
    if job.status != "succeeded" or not job.fine_tuned_model:
        raise Broken(f"{job.id} {job.status}: {job.error}")
    digest = weights(client, job)
    says = [_says(client, model) for model in (base, job.fine_tuned_model)]
    return Found(base, job.fine_tuned_model, job.id, steps, first, whole, digest, says[0], says[1])


def rows(count: int = 16) -> bytes:
    """Choice rows, no two alike."""
    made = (
        {
            "prompt": f"Review {i}: {REVIEWS[i % 4][0]}. Sentiment:",
            "choices": [" bad", " good"],
            "label": REVIEWS[i % 4][1],
        }
        for i in range(count)
    )
    return "".join(json.dumps(row) + "\n" for row in made).encode()


def submit(client: OpenAI, base: str, steps: int) -> FineTuningJob:
    """A job of `steps` steps that none of its rows is held out of."""
    file = client.files.create(file=("smoke.jsonl", rows()), purpose="fine-tune")
    onward = {"method": METHOD, "steps": steps, "batch_size": 4, "held_out": 0}
    return client.fine_tuning.jobs.create(model=base, training_file=file.id, seed=7, extra_body={"onward": onward})


def ended(client: OpenAI, job_id: str) -> FineTuningJob:
    """The job once it has come to an end, however it did."""

    def over() -> FineTuningJob | None:
        job = client.fine_tuning.jobs.retrieve(job_id)
        return job if job.status in ENDED else None

    return _until(over, f"the end of {job_id}")


def weights(client: OpenAI, job: FineTuningJob) -> str:
    """The sha256 of the adapter as it is downloaded, which must be what the job says."""
    ours = (job.model_extra or {})["onward"]["adapter"]
    file = ours["file"]
    with tarfile.open(fileobj=io.BytesIO(client.files.content(file).read())) as tar:
        member = tar.extractfile("adapter_model.safetensors")
        if member is None:
            raise Broken(f"{file} has no adapter_model.safetensors")
        digest = hashlib.sha256(member.read()).hexdigest()
    if digest != ours["sha256"]:
        raise Broken(f"{file} holds {digest}, and the job says {ours['sha256']}")
    return digest


def refused(client: OpenAI) -> None:
    """A stranger's key is told nothing; an unknown model is refused before anything is queued."""
    _refuses(openai.AuthenticationError, lambda: client.with_options(api_key="sk-nobody").models.list())
    file = client.files.create(file=("smoke.jsonl", rows(4)), purpose="fine-tune")
    _refuses(openai.NotFoundError, lambda: client.fine_tuning.jobs.create(model="no-such-base", training_file=file.id))
    client.files.delete(file.id)


def _refuses(error: type[openai.APIStatusError], act: Callable[[], object]) -> None:
    try:
        act()
    except error as raised:
        if not raised.message:
            raise Broken(f"{error.__name__} came without a message") from raised
        return
    raise Broken(f"{error.__name__} did not come")


def _base(client: OpenAI) -> str | None:
    return next((model.id for model in client.models.list() if not model.id.startswith("ft:")), None)


def _step(client: OpenAI, job_id: str) -> int:
    job = client.fine_tuning.jobs.retrieve(job_id)
    if job.status in ("failed", "cancelled"):
        raise Broken(f"{job.id} {job.status}: {job.error}")
    return int((job.model_extra or {})["onward"]["step"] or 0)


def _says(client: OpenAI, model: str) -> str:
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Review 1: a joy. Sentiment:"}]
    done = client.chat.completions.create(model=model, messages=asked, max_completion_tokens=8, temperature=0)
    return done.choices[0].message.content or ""


def _until(true: Callable[[], T | None], what: str) -> T:
    ends = time.monotonic() + WAIT
    while not (found := true()):
        if time.monotonic() > ends:
            raise Broken(f"{what} did not come within {WAIT:.0f} s")
        time.sleep(0.02)
    return found


def main(url: str, key: str) -> None:
    try:
        print(json.dumps(asdict(walk(OpenAI(base_url=url, api_key=key))), indent=1))
    except (Broken, openai.OpenAIError) as error:
        sys.exit(f"smoke: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
