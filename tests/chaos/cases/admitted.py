"""Cases 1, 4 and 7: what must be refused or bounded before it costs others anything."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
from openai import OpenAI

from tests.chaos.cases.ground import FOREVER, PATIENCE, SLICE, Claim, Ground, within
from tests.chaos.cursed import VARIABLE
from tests.chaos.fleet import CURSED
from tests.service.conftest import rows

LONG = 4096  # tokens of context, for case 7
MIB = 2**20
MOST = 100 * MIB  # that counting a small file may take


def numbers_beyond_the_engine(ground: Ground) -> Iterator[Claim]:
    """1: no number of a spec may overflow the engine, and an engine that raised is not given up for it."""
    adversary, bystander = ground.tenant("adversary"), ground.tenant("bystander")
    for name in ("alpha", "eps", "learning_rate"):
        status = refused(ground, adversary, rank=1, steps=3, **{name: 1e308})
        yield Claim(f"{name} 1e308 is refused", status == 400, str(status))
    post = ground.post(main=CURSED, **{VARIABLE: "13:raise"})
    with ground.crew(post):
        ground.ready(post)
        before = ground.submit(bystander)
        ground.over(before)
        raises, innocent = ground.submit(adversary, rank=13), ground.submit(bystander, steps=300)
        ended = ground.over(raises, innocent)
        yield ground.state(raises, "failed", "the run at which the engine raises fails alone")
        yield ground.whole(bystander, innocent)
        yield Claim("the worker lives", ended and not post.ended, f"{len(post.ended)} ends")
        yield ground.waits(innocent, ground.waited(before))


def tokens_of_a_step(ground: Ground) -> Iterator[Claim]:
    """4: a step has a bound, and within it others' turns and its own cancel are heard between two waves."""
    adversary, bystander = ground.tenant("adversary"), ground.tenant("bystander")
    training = ground.file(adversary, wide(256, choices=64, tokens=100, answer=140))
    most, largest = 0, ""
    for batch in (256, 128, 64, 32, 16, 8, 4, 2, 1):
        try:
            job = decided(adversary, huge(ground, adversary, training, batch))
        except openai.BadRequestError:
            continue
        if job.status == "failed":
            continue
        most, largest = job.onward["price"]["training"] // FOREVER, job.id
        break
    yield Claim("a step of millions of tokens is refused", most < 2_000_000, f"{most:,} tokens accepted")
    adversary.fine_tuning.jobs.pause(largest)
    post = ground.post("vllm", ONWARD_SELF_CHECK="false")
    with ground.crew(post):
        ground.ready(post, 2 * PATIENCE)
        before = ground.submit(bystander, steps=40)
        ground.over(before)
        adversary.fine_tuning.jobs.resume(largest)
        within(lambda: ground.fleet.job(largest).state == "running")
        innocent = ground.submit(bystander, steps=40)
        ground.over(innocent, seconds=10 * SLICE)
        yield ground.waits(innocent, ground.waited(before))
        yield ground.whole(bystander, innocent)
        adversary.fine_tuning.jobs.cancel(largest)
        begun = time.monotonic()
        heard = ground.over(largest, seconds=5 * SLICE)
        took = time.monotonic() - begun
        yield Claim("its cancel is heard within two slices", heard and took <= 2 * SLICE, f"{took / SLICE:.2f} slices")


def memory_of_a_count(ground: Ground) -> Iterator[Claim]:
    """7: what an upload and its count take of the API's memory has a bound, whatever is in the file."""
    model = {ground.model: str(longer(ground.fleet.base, ground.fleet.home / "long"))}
    data = wide(32, choices=64, tokens=2000)
    with ground.fleet.own_api(ONWARD_MODELS=json.dumps(model)) as (url, api):
        client = ground.tenant("adversary").with_options(base_url=f"{url}/v1")
        huge_try(ground, client, ground.file(client, wide(2, choices=2, tokens=50)))  # what is loaded once
        Path(f"/proc/{api.pid}/clear_refs").write_text("5")  # the peak from now on
        before = memory(api.pid, "VmRSS")
        training = ground.file(client, data)
        uploaded = memory(api.pid, "VmHWM") - before
        status = huge_try(ground, client, training)
        counted = memory(api.pid, "VmHWM") - before
        yield Claim("an upload is bounded", uploaded <= MOST, f"{uploaded / MIB:.0f} MiB for {len(data) / MIB:.2f} MiB")
        yield Claim("a count is bounded", counted <= MOST, f"{counted / MIB:.0f} MiB for 32 rows of 64 choices")
        yield Claim("the answer is no 5xx", status < 500, str(status))


def refused(ground: Ground, client: OpenAI, **onward: Any) -> int:
    """The status that the job is answered with; an accepted one is cancelled."""
    try:
        job = ground.submit(client, **onward)
    except openai.APIStatusError as error:
        return error.status_code
    client.fine_tuning.jobs.cancel(job)
    return 200


def huge(ground: Ground, client: OpenAI, training: str, batch: int) -> Any:
    """A job whose every step scores `batch` of the widest rows."""
    own = {"steps": FOREVER, "batch_size": batch, "rank": 1, "targets": ["q_proj"], "method": "mezo", "held_out": 0}
    return client.fine_tuning.jobs.create(model=ground.model, training_file=training, extra_body={"onward": own})


def huge_try(ground: Ground, client: OpenAI, training: str) -> int:
    try:
        job = decided(client, huge(ground, client, training, 1))
        if job.status != "failed":
            client.fine_tuning.jobs.cancel(job.id)
    except openai.APIStatusError as error:
        return error.status_code
    return 200


def decided(client: OpenAI, job: Any) -> Any:
    """The job once its files are counted, outside of the request where they are large."""

    def now() -> Any:
        found = client.fine_tuning.jobs.retrieve(job.id)
        return None if found.status == "validating_files" else found

    return within(now) if job.status == "validating_files" else job


def wide(count: int, choices: int, tokens: int, answer: int = 1) -> bytes:
    """Rows with prompts of about so many tokens, and so many choices of `answer` tokens or two more. What the choices
    of a row have in common is scored once."""
    out = []
    for i in range(count):
        words = rows(1, start=i).decode().partition('"prompt": "')[2].partition('"')[0]
        prompt = (words + " great" * tokens)[: tokens * 3]
        out.append(
            json.dumps(
                {
                    "prompt": prompt,
                    "choices": [f" c{n}" + " great" * (answer - 1) for n in range(choices)],
                    "label": i % choices,
                }
            )
        )
    return ("\n".join(out) + "\n").encode()


def longer(base: Path, to: Path) -> Path:
    """The base model again, said to have a context of LONG tokens: it is counted with, never run."""
    if not to.exists():
        shutil.copytree(base, to)
        for name, key in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
            page = json.loads((to / name).read_text())
            (to / name).write_text(json.dumps(page | {key: LONG}))
    return to


def memory(pid: int, name: str) -> int:
    """Bytes of one line of /proc/<pid>/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
