"""From two files to an adapter, with the openai client as it comes: train.py TRAIN VALID [MODEL [STEPS]]

OPENAI_BASE_URL and OPENAI_API_KEY say where the service is; `make up` prints both.
"""

import io
import sys
import tarfile
import time
from pathlib import Path

from openai import OpenAI

ENDED = ("succeeded", "failed", "cancelled")


def main(train: str, valid: str, model: str = "", steps: str = "auto") -> None:
    client = OpenAI()
    model = model or next(m.id for m in client.models.list() if not m.id.startswith("ft:"))
    files = [client.files.create(file=Path(path), purpose="fine-tune") for path in (train, valid)]
    job = client.fine_tuning.jobs.create(
        model=model,
        training_file=files[0].id,
        validation_file=files[1].id,
        # Ours, and optional: what is left out is "auto". A method is a name, or an object with settings of its own.
        extra_body={
            "onward": {"method": {"name": "mezo", "eps": 1e-2}, "steps": steps if steps == "auto" else int(steps)}
        },
    )
    print(f"{job.id}: {job.model_extra['onward']['price_tokens']} scored tokens, exactly")
    while job.status not in ENDED:
        time.sleep(0.5)
        job = client.fine_tuning.jobs.retrieve(job.id)
    for event in reversed(client.fine_tuning.jobs.list_events(job.id, limit=100).data):
        print(f"  {event.message}")
    if job.status != "succeeded":
        sys.exit(f"{job.id} {job.status}: {job.error}")
    content = client.files.content(job.result_files[1]).read()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall("adapter", filter="data")
    print(f"{job.fine_tuned_model} is in adapter/")


if __name__ == "__main__":
    main(*sys.argv[1:])
