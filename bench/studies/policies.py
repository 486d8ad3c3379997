"""`python -m bench.studies.policies`: what roles and policies cost: requests of an API, and the commit of a step.

The same rows and requests, in turn by the code of the release before as a superuser (given its folder), by this code as
a superuser, and by this code in its roles. Writes bench/results/policies.json.
"""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy.orm import Session, sessionmaker
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE

from bench.report.measure import RESULTS, interleaved, machine, spread
from cli.local.embedded import Embedded, Urls
from cli.local.processes import start, wait_ready
from db import security, workers
from db.session import make_engine
from db.tenant import keys
from db.worker import journal, leases
from db.worker.candidates import candidates
from db.worker.journal import Step
from db.worker.leases import Claim
from migrations.roles import set_passwords
from migrations.run import upgrade

MODEL, JOBS, ROUNDS, WARM = "tiny", 200, 400, 50
LEASE = 3600.0  # seconds
ROW = b'{"prompt": "the film was long:", "choices": [" bad", " good"], "label": 1}\n'


def base_folder(folder: Path) -> Path:
    """The small files of a llama of one layer with a tokenizer of bytes: an API reads no weights."""
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = {"model_type": "llama", "vocab_size": 260, "max_position_embeddings": 64, **sizes}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    letters = Tokenizer(BPE())
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    letters.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    letters.save(str(folder / "tokenizer.json"))
    return folder


@contextmanager
def api(code: Path, database_url: str, redis_url: str, home: Path, name: str) -> Iterator[str]:
    """The base URL of a process of `code` on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {
        "ONWARD_DATABASE_URL": database_url,
        "ONWARD_REDIS_URL": redis_url,
        "ONWARD_MODELS": json.dumps({MODEL: str(home / "base")}),
        "ONWARD_PORT": str(port),
        "ONWARD_LOG_LEVEL": "ERROR",
        "PYTHONPATH": str(code),
    }
    url = f"http://127.0.0.1:{port}"
    before = Path.cwd()
    os.chdir(code)  # `python -m` looks there first
    process = start(name, [sys.executable, "-m", "api"], env, home / "logs")
    os.chdir(before)
    try:
        wait_ready(process, lambda: _up(url), 60, f"starting the API {name}")
        yield url
    finally:
        process.stop(10)


def _up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def requests(urls: dict[str, str], key: str) -> dict[str, Any]:
    """Seconds of each request by each API, in turn."""
    with ExitStack() as last:
        headers = {"Authorization": f"Bearer {key}"}
        https = {n: last.enter_context(httpx.Client(base_url=u, headers=headers, timeout=60)) for n, u in urls.items()}
        first = next(iter(https.values()))
        sent = first.post("/v1/files", files={"file": ("rows.jsonl", ROW * 8)}, data={"purpose": "fine-tune"})
        file = sent.json()["id"]
        about = {"steps": 4, "batch_size": 2, "rank": 2}
        body = {"model": MODEL, "training_file": file, "onward": about}
        jobs = "/v1/fine_tuning/jobs"
        job = [first.post(jobs, json=body).json()["id"] for _ in range(JOBS)][-1]
        kinds: dict[str, Callable[[httpx.Client], httpx.Response]] = {
            "retrieve": lambda http: http.get(f"{jobs}/{job}"),
            "list 20": lambda http: http.get(jobs, params={"limit": 20}),
            "create": lambda http: http.post(jobs, json=body),
        }
        return {kind: _compared({n: _ok(call, http) for n, http in https.items()}) for kind, call in kinds.items()}


def _ok(call: Callable[[httpx.Client], httpx.Response], http: httpx.Client) -> Callable[[int], None]:
    def ask(_: int) -> None:
        call(http).raise_for_status()

    return ask


def _compared(contenders: dict[str, Callable[[int], None]]) -> dict[str, Any]:
    return {name: spread(seconds) for name, seconds in interleaved(contenders, ROUNDS, WARM).items()}


def commits(urls: Urls) -> dict[str, Any]:
    """Seconds of a step's commit, and of looking for candidates, as superuser and as the worker's role, in turn."""
    factories = {
        name: sessionmaker(make_engine(url), expire_on_commit=False)
        for name, url in {"superuser": urls.database_url, "roles": urls.worker_url}.items()
    }
    owner = factories["superuser"]
    with owner.begin() as session:
        waiting = candidates(session, MODEL, limit=len(factories))
        worker = workers.register(session, model=MODEL, host="bench", pid=1)
    flushes: dict[str, Callable[[int], None]] = {}
    looks: dict[str, Callable[[int], None]] = {}
    for (name, factory), job in zip(factories.items(), waiting, strict=True):
        with security.transaction(owner, job.tenant_id) as session:
            claim = leases.claim(session, job.job_id, worker, LEASE, 5)
        assert claim is not None
        _lengthen(owner, claim)
        flushes[name] = _flush(factory, claim)
        looks[name] = _look(factory)
    return {"journal.flush": _compared(flushes), "candidates": _compared(looks)}


def _lengthen(owner: sessionmaker[Session], claim: Claim) -> None:
    from db.tables import Job

    with owner.begin() as session:
        session.get_one(Job, claim.job_id).total_steps = WARM + ROUNDS


def _flush(factory: sessionmaker[Session], claim: Claim) -> Callable[[int], None]:
    def flush(number: int) -> None:
        with security.transaction(factory, claim.tenant_id) as session:
            journal.flush(session, claim, [Step(number, [0.5, 0.25], 10)])

    return flush


def _look(factory: sessionmaker[Session]) -> Callable[[int], None]:
    def look(_: int) -> None:
        with security.across(factory) as session:
            candidates(session, MODEL)

    return look


def main() -> None:
    """`before` is the folder that the release before was unpacked in (tests/upgrade/before-0008.tar.xz), if given."""
    codes = {"before": Path(sys.argv[1]).resolve()} if len(sys.argv) > 1 else {}
    with tempfile.TemporaryDirectory(prefix="onward-policies-") as folder, ExitStack() as last:
        home = Path(folder)
        home.chmod(0o711)
        base_folder(home / "base")
        embedded = Embedded(home)
        urls = embedded.start()
        last.callback(embedded.stop)
        upgrade(urls.database_url)
        set_passwords(urls.database_url, urls.passwords)
        with sessionmaker(make_engine(urls.database_url)).begin() as session:
            tenant = keys.create(session, "bench", max_jobs=100_000)
            key = keys.create_key(session, tenant.id)[1]
        here = Path(__file__).parents[2]
        who = {name: (code, urls.database_url) for name, code in codes.items()}
        who |= {"superuser": (here, urls.database_url), "roles": (here, urls.api_url)}
        apis = {n: last.enter_context(api(c, url, urls.redis_url, home, n)) for n, (c, url) in who.items()}
        seconds = requests(apis, key) | commits(urls)
    for kind, by in seconds.items():
        least = by.get("before", by["superuser"])["median"]
        told = ", ".join(f"{name} {x['median'] * 1e3:.2f} ms" for name, x in by.items())
        print(f"{kind:<14} {told}: {by['roles']['median'] / least - 1:+.1%}")
    found = {"machine": machine(), "rounds": ROUNDS, "seconds": seconds}
    (RESULTS / "policies.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
