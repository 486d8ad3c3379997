"""Cases 16 to 18: a database that cannot be reached, is another one now, or cannot write."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
from openai import OpenAI
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from cli.local.servers import Postgres
from tests.chaos.cases.ground import PATIENCE, Claim, Ground, NotPlayed, within
from tests.chaos.relay import Relay
from tests.ports import free_port
from tests.waiting import until

LOCK = b"FOR NO KEY UPDATE OF jobs"  # a worker's first words in a transaction that writes a job's journal
IDLE = "idle_in_transaction_session_timeout=5s"  # a minute, where nobody says otherwise
SPARE = 64 * 2**20  # bytes that a database has left on its disk before it is filled: four segments of its log


def partition(ground: Ground) -> Iterator[Claim]:
    """16: a worker cut off from the database without a sign, holding its job's row, loses the job to another, and is
    refused when back."""
    bystander = ground.tenant("bystander")
    with Relay(ground.fleet.embedded.postgres.port) as relay:
        direct = make_url(ground.fleet.urls.worker_url)
        through = direct.set(port=relay.port).update_query_dict({"options": f"-c {IDLE}"})
        through = through.render_as_string(hide_password=False)
        far, near = ground.post(ONWARD_DATABASE_URL=through), ground.post()
        with ground.crew(far):
            cut_off = far.process
            assert cut_off is not None
            relay.cut_after(LOCK)
            job = ground.submit(bystander, steps=400)
            yield Claim("it is cut off with the job's row in its hands", within(lambda: relay.is_cut), "")
            left = ground.fleet.job(job).step
            ground.fleet.posts.append(near)
            try:
                taken = ground.at(job, left + 20)
                yield Claim("another worker takes the job and goes on", taken, f"from step {left}")
            finally:
                relay.heal()
            ground.over(job)
            yield Claim("the one that was cut off lives on", cut_off.alive, f"process {cut_off.pid}")
            yield ground.whole(bystander, job)
            later = ground.submit(bystander, steps=20)
            ground.fleet.dismiss(near)
            ground.fleet.posts.remove(near)
            ground.over(later)
            yield ground.whole(bystander, later, what="and works again, when it is alone")


def fail_over(ground: Ground) -> Iterator[Claim]:
    """17: the database dies in mid-transaction and a synchronous replica takes its place and its address."""
    bystander = ground.tenant("bystander")
    with _replica(ground) as promote, ground.crew(ground.post(), ground.post()):
        jobs = [ground.submit(bystander, steps=300, seed=seed) for seed in (1, 2, 3)]
        for job in jobs:
            ground.at(job, 10)
        before = {job: ground.fleet.job(job).step for job in jobs}
        with ground.fleet.outage():
            promote()
            until(lambda: ground.fleet.answered(_there), "the replica answers")
        after = {job: ground.fleet.job(job).step for job in jobs}
        kept = all(after[job] >= before[job] for job in jobs)
        yield Claim("no committed step is lost", kept, f"{sorted(before.values())} -> {sorted(after.values())}")
        ground.over(*jobs)
        yield ground.whole(bystander, *jobs)


def full_database(ground: Ground) -> Iterator[Claim]:
    """18: the database's disk is full: it may go down, nobody is blamed, and all goes on once there is room."""
    bystander = ground.tenant("bystander")
    with _small_disk(ground) as disk:
        if disk is None:
            raise NotPlayed("this process may mount no disk")
        with ground.crew(ground.post()):
            worker = ground.fleet.posts[0].process
            job = ground.submit(bystander, steps=400)
            ground.at(job, 10)
            with ground.fleet.outage():
                filler = _filled(disk)
                answers = _refused(ground, bystander)
                filler.unlink()
                if ground.fleet.embedded.postgres.pid is None:
                    ground.fleet.embedded.restart_postgres()
                until(lambda: ground.fleet.answered(_there), "the database answers")
            honest = bool(answers) and set(answers) <= {503}
            yield Claim("uploads are answered 503, never 500", honest, f"{answers}")
            ground.over(job)
            yield ground.whole(bystander, job)
            same = worker is not None and worker.alive and ground.fleet.posts[0].process is worker
            yield Claim("the worker lives, and its job is not blamed", same and not ground.fleet.job(job).deaths, "")


@contextmanager
def _replica(ground: Ground) -> Iterator[Callable[[], None]]:
    """A standby that every commit waits for; calling what comes kills the primary and puts it in its place."""
    primary = ground.fleet.embedded.postgres
    standby = Postgres(primary.home.with_name("standby"), free_port(), primary.password, durable=False)
    standby.home.mkdir()
    data = standby.place() / "data"
    who = primary.identity()
    if who is not None:
        shutil.chown(data.parent, who.uid)
    url = f"postgresql://{make_url(primary.url).username}:{primary.password}@127.0.0.1:{primary.port}/postgres"
    subprocess.run(
        [str(primary._binary("pg_basebackup")), "-d", url, "-D", str(data), "-R", "-X", "stream", "-c", "fast"],
        check=True, capture_output=True, cwd="/", timeout=PATIENCE, **(who.popen if who else {}),
    )  # fmt: skip
    standby.start()
    ground.execute_alone("ALTER SYSTEM SET synchronous_standby_names = '*'")
    ground.execute("SELECT pg_reload_conf()")
    synchronous = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
    until(lambda: ground.value(synchronous), "every commit waits for the replica")

    def promote() -> None:
        primary.kill()
        subprocess.run(
            [str(primary._binary("pg_ctl")), "promote", "-D", str(data), "-w"],
            check=True, capture_output=True, cwd="/", timeout=PATIENCE, **(who.popen if who else {}),
        )  # fmt: skip
        standby.stop()
        standby.port = primary.port
        standby.start()
        ground.fleet.embedded._postgres = standby

    try:
        yield promote
    finally:
        if ground.fleet.embedded.postgres is primary:  # nothing came of it: commits wait for nobody any more
            ground.execute_alone("ALTER SYSTEM RESET synchronous_standby_names")
            ground.execute("SELECT pg_reload_conf()")
            standby.stop()


@contextmanager
def _small_disk(ground: Ground) -> Iterator[Path | None]:
    """The database's data on a disk of their own with SPARE bytes left; None where this process may mount none."""
    postgres = ground.fleet.embedded.postgres
    data = postgres.place() / "data"
    aside = data.with_name("data.aside")
    with ground.fleet.outage():
        postgres.stop()
        used = sum(file.stat().st_size for file in data.rglob("*") if file.is_file())
        data.rename(aside)
        data.mkdir()
        options = f"size={used + SPARE}"
        mounted = not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(data)], capture_output=True
        ).returncode
        if mounted:
            subprocess.run(["cp", "-a", f"{aside}/.", str(data)], check=True)
        else:
            data.rmdir()
            aside.rename(data)
        postgres.start()
    try:
        yield data if mounted else None
    finally:
        if mounted:
            with ground.fleet.outage():
                postgres.stop()
                shutil.rmtree(aside)
                subprocess.run(["cp", "-a", str(data), str(aside)], check=True)
                subprocess.run(["umount", "-l", str(data)], check=True, capture_output=True)
                data.rmdir()
                aside.rename(data)
                postgres.start()


def _there(session: Session) -> bool:
    return session.scalar(text("SELECT true")) is True


def _filled(disk: Path) -> Path:
    """A file that leaves not a byte on the disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(bytes(2**16))
        except OSError:
            pass
    return filler


def _refused(ground: Ground, client: OpenAI) -> list[int]:
    """The answers to uploads until the disk has been felt three times."""
    found: list[int] = []

    def felt() -> bool:
        try:
            ground.file(client, b'{"prompt": "%s", "completion": "b"}\n' % (b"a" * 2**14) * 64)
        except openai.APIStatusError as error:
            found.append(error.status_code)
        except (openai.APIConnectionError, httpx.HTTPError):
            found.append(0)
        return len(found) >= 3

    within(felt, PATIENCE / 2)
    return found
