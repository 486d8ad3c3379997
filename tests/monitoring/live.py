"""A real run of everything for Prometheus to watch: API, a worker with the real engine, tenants of three classes."""

import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from openai import ConflictError, OpenAI

from db.tenant import keys
from helm.monitoring.prometheus import INSTALLATION
from tests.bases import tiny
from tests.ports import free_port
from tests.service.conftest import rows
from tests.service.stage import Stage
from tests.tools import tool
from tests.waiting import HANG, until

RULES = Path(__file__).parents[2] / "helm" / "rules" / "onward.yaml"
MODEL = "tiny-llama"
CLASSES = {"standard": 1.0, "premium": 3.0, "trial": 0.5}
ONWARD = {"batch_size": 4, "rank": 2, "alpha": 4.0, "targets": ["q_proj", "v_proj"], "method": "mezo", "eps": 1e-2}
HELD_OUT = {"learning_rate": 1e-2, "eval_every": 20, "eval_rows": 8}
SERVES = {"ONWARD_SERVE_SECRET": "between the two of us", "ONWARD_SERVE_ADDRESS": "127.0.0.1"}
HI: Any = [{"role": "user", "content": "It was a long day. It was"}]  # with the invocation of ANSWER
ANSWER = {"activation": "answer", "invocation": "It was"}


@dataclass
class Live:
    """What runs, where Prometheus answers, and since when; `busy_until` is the end of the last work."""

    stage: Stage
    prometheus: str
    began: float = field(default_factory=time.time)
    busy_until: float = 0.0
    clients: dict[str, OpenAI] = field(default_factory=dict)

    def admit(self) -> None:
        """A tenant of each class."""
        for tenant_class, weight in CLASSES.items():
            with self.stage.factory.begin() as session:
                tenant = keys.create(session, f"a-{tenant_class}-tenant", tenant_class, weight)
                _, secret = keys.create_key(session, tenant.id)
            url = f"{self.stage.url}/v1"
            self.clients[tenant_class] = OpenAI(base_url=url, api_key=secret, max_retries=0, timeout=HANG)

    def submit(self, tenant_class: str, steps: int, **onward: object) -> str:
        client = self.clients[tenant_class]
        train, valid = (
            client.files.create(file=("rows.jsonl", data), purpose="fine-tune").id
            for data in (rows(24), rows(8, start=100))
        )
        body = {"onward": ONWARD | HELD_OUT | {"steps": steps} | onward}
        job = client.fine_tuning.jobs.create(model=MODEL, training_file=train, validation_file=valid, extra_body=body)
        return job.id

    def chat(self, tenant_class: str, model: str) -> None:
        """A stream of a few tokens, read to its end, and a whole answer."""
        chats = self.clients[tenant_class].chat.completions
        for part in chats.create(model=model, messages=HI, max_tokens=8, stream=True):
            assert part.model
        assert chats.create(model=model, messages=HI, max_tokens=8).usage

    def chat_live(self, tenant_class: str, job: str) -> None:
        """With the job as it is now, once it has taken a step."""
        onward: Any = (self.clients[tenant_class].fine_tuning.jobs.retrieve(job).model_extra or {})["onward"]
        if onward["live_model"] is not None:
            with suppress(ConflictError):  # not yet
                self.chat(tenant_class, onward["live_model"])

    def work(self, enough: Callable[[], bool], every: float = 2.0) -> None:
        """Tenants in turn submit short jobs of both activations, watch them, and chat with the base and with
        their long jobs as they train; until it is `enough`, asked once every tenant had a turn of each kind."""
        long = {name: self.submit(name, 200_000, seed=1) for name in CLASSES}
        kinds: tuple[dict[str, object], ...] = ({}, ANSWER)
        turns = itertools.cycle(itertools.product(kinds, CLASSES))
        seed, whole = 2, len(kinds) * len(CLASSES)
        while (seed - 2) % whole or not enough():
            kind, name = next(turns)
            job, seed = self.submit(name, 40, seed=seed, **kind), seed + 1
            due = time.monotonic() + every
            while time.monotonic() < due:
                self.clients[name].fine_tuning.jobs.retrieve(job)
                self.chat(name, MODEL)
                self.chat_live(name, long[name])
                self.clients[name].fine_tuning.jobs.list_events(job)
                time.sleep(0.2)
        self.busy_until = time.time()
        for name, job in long.items():
            self.clients[name].fine_tuning.jobs.cancel(job)


@contextmanager
def live() -> Iterator[Live]:
    """Everything started and scraped every few seconds; all of it is gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="onward-watched-"))
    home.chmod(0o711)  # the database's own user must get through
    stage = Stage(home, tiny("llama", home), (MODEL,), env=SERVES)
    try:
        stage.start()
        worker = stage.worker(MODEL, wait=False, ONWARD_CANARY_SECONDS="3")
        api_port = int(stage.url.rpartition(":")[2])
        with prometheus(home, {"onward-api": api_port, "onward-worker": worker.metrics_port}) as url:
            made = Live(stage, url)
            made.admit()
            stage.ready(worker)
            yield made
    finally:
        stage.stop()
        shutil.rmtree(home)


@contextmanager
def prometheus(home: Path, ports: dict[str, int]) -> Iterator[str]:
    """A Prometheus with our rules, scraping each job's port every few seconds; its address."""
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": INSTALLATION}]}
        for job, port in ports.items()
    ]
    # The dashboards' rates look back 15 s: two scrapes at least, and a slow one is no missing target.
    every = {"scrape_interval": "5s", "scrape_timeout": "5s", "evaluation_interval": "1s"}
    config = home / "prometheus.json"  # JSON is YAML
    config.write_text(json.dumps({"global": every, "rule_files": [str(RULES)], "scrape_configs": jobs}))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    told = [f"--config.file={config}", f"--storage.tsdb.path={home / 'prometheus'}"]
    with (home / "prometheus.log").open("wb") as log:
        command = [str(tool("prometheus")), *told, f"--web.listen-address=127.0.0.1:{port}"]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: _ready(process, url, home / "prometheus.log"), "Prometheus is ready")
        yield url
    finally:
        process.terminate()
        process.wait(HANG)


def _ready(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    assert process.poll() is None, log.read_text()[-3000:]
    with suppress(OSError):
        return bool(urlopen(f"{url}/-/ready", timeout=HANG).status == 200)
    return False
