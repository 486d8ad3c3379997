"""`onward up`: the service in the foreground, with a tenant, a key and a snippet to paste."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from cli import show
from cli.client import Failure
from cli.local.demo_model import DEMO_MODEL, demo_model
from cli.local.processes import waiting
from cli.local.stack import Stack, private, running, terminable
from db.settings import Settings
from db.tenant import keys

Home = Annotated[Path, typer.Option(envvar="ONWARD_HOME", help="Where everything is kept.")]
TENANT, KEY = "demo", "demo.key"

SNIPPET = """\
import time

from openai import OpenAI

client = OpenAI(base_url="{base_url}", api_key="{key}")
rows = b"".join(
    b'{{"prompt": "Review: %s Sentiment:", "choices": [" bad", " good"], "label": %d}}\\n' % row
    for row in [(b"a joy.", 1), (b"a bore.", 0), (b"I laughed all along.", 1), (b"I fell asleep.", 0)]
)
file = client.files.create(file=("reviews.jsonl", rows), purpose="fine-tune")
job = client.fine_tuning.jobs.create(
    model="{model}", training_file=file.id, extra_body={{"onward": {{"steps": 20}}}}
)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(1)
    job = client.fine_tuning.jobs.retrieve(job.id)
for event in reversed(list(client.fine_tuning.jobs.list_events(job.id))):  # they come newest first
    print(event.message)
print(job.status, job.fine_tuned_model)"""


def up(
    home: Home = Path(".onward"),
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="A base model (folder or hub id); once a model.")
    ] = None,
    autograd: Annotated[
        bool, typer.Option(help="A second worker a model, for methods that need derivatives: the weights once more.")
    ] = True,
) -> None:
    """Run the whole service here until Ctrl-C: PostgreSQL, Valkey, API and the workers of each model."""
    home = home.resolve()
    models = dict(map(_named, model or ())) or Settings().models or demo_models(home)
    with terminable():
        try:
            with running(home, models, port, autograd) as stack:
                key = demo_key(stack)
                stack.publish(key)
                _announce(stack, key)
                while True:
                    stack.tend()
                    time.sleep(0.5)
        except KeyboardInterrupt:
            show.err.print("stopped")


def demo_models(home: Path) -> dict[str, str]:
    """The demo's base model by name; built on the first call."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder of our own: nothing to ask a hub
    with waiting(f"building {DEMO_MODEL} from its package"):
        return {DEMO_MODEL: str(demo_model(home))}


def demo_key(stack: Stack) -> str:
    """A key of the tenant `demo`: the one kept in the home while the database accepts it, else a new one."""
    path = stack.home / KEY
    kept = path.read_text().strip() if path.exists() else ""
    with stack.sessions.begin() as session:
        known = keys.authenticate(session, kept) if kept else None
        if known is not None and known.tenant is not None and known.tenant.name == TENANT:
            return kept
        tenant = keys.find(session, TENANT) or keys.create(session, TENANT)
        secret = keys.create_key(session, tenant.id)[1]
    private(path, secret + "\n")
    return secret


def _announce(stack: Stack, key: str) -> None:
    model = next(iter(stack.models))
    show.out.print(f"\n[bold]Onward is ready[/] at {stack.base_url}  (models: {', '.join(stack.models)})")
    show.out.print(f"key of tenant {TENANT!r}: [bold]{key}[/]  (kept in {stack.home / KEY})")
    show.out.print("\nPaste this into Python:\n", style="dim")
    typer.echo(SNIPPET.format(base_url=stack.base_url, key=key, model=model))
    show.out.print("\nor, in another terminal: onward jobs list. Ctrl-C stops everything.", style="dim")


def _named(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise Failure(f"--model {text!r} is not NAME=PATH", "for example --model tiny=/models/tiny")
    return name, str(Path(path).resolve()) if Path(path).exists() else path
