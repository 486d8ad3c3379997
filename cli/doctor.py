"""`onward doctor`: looks at an installation from where it stands and says what is wrong and what to do.

Writes nothing but a few bytes to a store of files, and needs no worker's libraries: what an engine's self-check found,
and on what level of processor, is in the worker's row. Where those are, it says what a worker started here would find.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import redis
import typer
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from cli import beside, show
from cli.admin import settings
from db import security
from db.contract.tokens import base_model
from db.contract.tokens.architectures import ARCHITECTURES
from db.hidden import redacted
from db.overview import FRESH, Overview, overview
from db.session import sessions
from db.settings import Settings
from db.store import seam
from db.store.opening import Stores
from db.store.seam import StoreAway
from db.tables import Worker
from db.telemetry.version import VERSION

Mark = Literal["ok", "warn", "fail"]
STYLE = {"ok": "green", "warn": "yellow", "fail": "red"}
OLDEST_POSTGRES = 140000
SKEW_SECONDS = 2.0
WAIT_SECONDS = 600.0
FREE_BYTES = 2 << 30


@dataclass(frozen=True)
class Finding:
    """One thing looked at; `todo` says what to do about it, where it is not ok."""

    part: str
    mark: Mark
    found: str
    todo: str = ""


def doctor(as_json: show.Json = False) -> None:
    """Check this installation: settings, database, migrations, clock, broker, store, workers, queue. Exit 1: a fail."""
    findings = [replace(f, found=redacted(f.found)) for f in examine(settings())]
    failed = any(f.mark == "fail" for f in findings)
    if as_json:
        show.as_json({"version": VERSION, "healthy": not failed, "findings": [asdict(f) for f in findings]})
    else:
        show.out.print(f"onward {VERSION}")
        for f in findings:
            show.out.print(f"[{STYLE[f.mark]}]{f.mark:<5}[/] {f.part:<12} {f.found}", soft_wrap=True)
            if f.todo:
                show.out.print(f"      [dim]{f.todo}[/]", soft_wrap=True)
    raise typer.Exit(int(failed))


def examine(at: Settings) -> Iterator[Finding]:
    """Every finding, in the order in which parts need each other; what needs a part that is away is left out, and so is
    what a service that still starts has not brought up yet."""
    up = beside.read(at.home)
    yield from _service(up, at.home)
    if up is not None and up.waits_for() is not None:
        yield from _store(at.home)
        yield from _processor()
        return
    yield from _models(at)
    yield from _store(at.home)
    yield _files(at)
    yield from _processor()
    yield from _broker(at.redis_url)
    try:
        with sessions(at.database_url).begin() as session:
            yield from _database(session, at)
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", error)).splitlines()[0]
        todo = "start it, or correct ONWARD_DATABASE_URL and its password (ONWARD_SECRETS_DIR)"
        yield Finding("database", "fail", f"cannot be used: {said}", todo)


def _service(up: beside.Up | None, home: Path) -> Iterator[Finding]:
    """What `onward up` tells of its own processes; nothing where this is another kind of installation."""
    if up is None:
        for other in beside.elsewhere(home) if "ONWARD_DATABASE_URL" not in os.environ else []:
            found = f"none runs in {home.resolve()}, one in {other}"
            yield Finding("service", "warn", found, f"to look at that one: ONWARD_HOME={other} onward doctor")
        return
    late = up.waits_for()
    if late is not None:
        yield Finding("service", "warn", f"is still starting: {late}", "ask again; the rest is looked at once it is up")
    elif not any(c.restarts or c.state != "ready" for c in up.components):
        since = show.when(max((c.since for c in up.components), default=up.since))
        yield Finding("service", "ok", f"`onward up` (process {up.pid}), whole since {since}")
    for c in up.components:
        died = f", last death {c.died}" if c.died else ""
        found = f"{c.name} is {c.state} for {show.span(time.time() - c.since)}, restarted {c.restarts} times{died}"
        if c.state == "given up":
            todo = f"its log is {c.log}; mend what it says, then stop `onward up` and start it again"
            yield Finding("service", "fail", found, todo)
        elif c.restarts or c.died:
            yield Finding("service", "warn", found, f"docs/operations.md#on-one-machine; its log is {c.log}")


def _models(at: Settings) -> Iterator[Finding]:
    if not at.models:
        yield Finding("models", "fail", "none is configured", 'set ONWARD_MODELS, such as {"name": "/models/name"}')
    for name in sorted(at.models):
        try:
            base = base_model.load(name, at)
        except Exception as error:  # whatever a folder or a hub may answer
            todo = f"the folder needs config.json and tokenizer.json of a causal model ({', '.join(ARCHITECTURES)})"
            yield Finding("models", "fail", f"{name}: {error}", todo)
        else:
            yield Finding("models", "ok", f"{name}: {base.architecture}, {len(base.modules)} linears, {base.source}")


def _store(home: Path) -> Iterator[Finding]:
    """Adapters and snapshots are caches, so an API's machine may have no such folder."""
    if not home.is_dir():
        yield Finding("store", "ok", f"{home} is not on this machine (a worker's cache)")
        return
    free = shutil.disk_usage(home).free
    if not os.access(home, os.W_OK):
        yield Finding("store", "fail", f"{home} cannot be written", "give it to the worker's user (10001 in the image)")
    elif free < FREE_BYTES:
        todo = "make room: adapters/ and snapshots/ in it may be deleted while no worker runs, the journal remakes them"
        yield Finding("store", "warn", f"{home} has {show.size(free, 'B')} free", todo)
    else:
        yield Finding("store", "ok", f"{home} has {show.size(free, 'B')} free")


def _files(at: Settings) -> Finding:
    """The one look that writes: a few bytes, taken away again."""
    stores = Stores(at)
    if stores.writes is None:
        return Finding("files", "ok", "in the database")
    try:
        seam.probe(stores.at(stores.writes))
    except StoreAway as error:
        todo = "uploads and results wait for it: docs/operations.md#where-files-lie"
        return Finding("files", "fail", f"{stores.writes}: {error}", todo)
    return Finding("files", "ok", f"{stores.writes} can be written")


def _processor() -> Iterator[Finding]:
    """The API's image has no torch: only a worker's machine can say it."""
    if find_spec("torch") is None:
        return
    from worker.engine import processor

    yield Finding("processor", "ok", f"{processor.level()} (of this machine)")


def _broker(url: str) -> Iterator[Finding]:
    try:
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
            version = client.info("server").get("redis_version", "?")
            policy, append = _config(client, "maxmemory-policy"), _config(client, "appendonly")
    except (redis.RedisError, OSError) as error:
        todo = "jobs are accepted and found by sweeping meanwhile; start it, or correct ONWARD_REDIS_URL"
        yield Finding("broker", "fail", f"does not answer: {error}", todo)
        return
    yield Finding("broker", "ok", f"Redis protocol {version}")
    if policy not in (None, "noeviction"):
        yield Finding("broker", "warn", f"maxmemory-policy is {policy}", "set it to noeviction: doorbells may vanish")
    if append not in (None, "yes"):
        yield Finding("broker", "warn", "it keeps nothing over a restart", "set appendonly yes (sweeps make up for it)")


def _config(client: Any, name: str) -> str | None:
    """None where a hosted broker does not tell."""
    try:
        found: dict[str, str] = client.config_get(name)
    except redis.ResponseError:
        return None
    return found.get(name)


def _database(session: Session, at: Settings) -> Iterator[Finding]:
    from migrations import run as migrations  # alembic, only here

    number = int(session.scalar(text("SHOW server_version_num")) or 0)
    known = f"PostgreSQL {number // 10000}.{number % 10000}"
    if number < OLDEST_POSTGRES:
        yield Finding("database", "fail", known, f"Onward needs {OLDEST_POSTGRES // 10000} or newer")
    else:
        yield Finding("database", "ok", known)
    now, wanted = migrations.current(session.connection()), migrations.head()
    if now != wanted:
        todo = "run `onward migrate` (safe while the old version serves)"
        if now is not None and now > wanted:
            todo = "this code is older than the database: it serves all the same; upgrade it when you can"
        yield Finding(
            "migrations", "fail" if now is None or now < wanted else "warn", f"at {now}, code at {wanted}", todo
        )
        if now is None:
            return
    else:
        yield Finding("migrations", "ok", f"at {now}")
    yield _bound(session)
    security.look_across(session)
    seen = overview(session, sorted(at.models))
    checks: tuple[Callable[[Session, Overview], Iterator[Finding]], ...] = (_clock, _workers, _queue)
    for check in checks:
        yield from check(session, seen)


def _bound(session: Session) -> Finding:
    """Operators' own commands run as the owner: only a process that serves tenants has to be bound."""
    role, why = session.scalar(text("SELECT session_user")), security.unbound(session)
    if why is None:
        return Finding("isolation", "ok", f"row-level security binds the role {role}")
    todo = f"right for an operator; give API and workers the roles {security.API} and {security.WORKER}"
    return Finding("isolation", "warn", f"row-level security does not bind the role {role}: it {why}", todo)


def _clock(_: Session, seen: Overview) -> Iterator[Finding]:
    found = f"{seen.clock_skew:+.2f} s beside the database's"
    if abs(seen.clock_skew) < SKEW_SECONDS:
        yield Finding("clock", "ok", found)
    else:
        todo = "synchronise clocks (NTP). Leases go by the database's clock and hold; waits and logs are shown wrong"
        yield Finding("clock", "warn", found, todo)


def _workers(session: Session, seen: Overview) -> Iterator[Finding]:
    fresh = select(Worker).where(
        Worker.state.in_(("starting", "ready", "out", "draining")),
        Worker.heartbeat_at > text(f"clock_timestamp() - interval '{FRESH}'"),
    )
    builds: dict[str, set[str]] = {"onward": set(), "vllm": set()}  # a torch worker has no vLLM to say
    for worker in session.scalars(fresh.order_by(Worker.model, Worker.started_at)):
        about = worker.about
        for name, own in builds.items():
            own |= {about[name]} if about.get(name) else set()
        checked = about.get("max_difference")
        said = f"self-check {checked:.1e} nats" if checked is not None else "no self-check"
        said = f"{worker.model} on {worker.host}: {worker.state}, {about.get('dtype', '?')}, {said}"
        said += f", {about['processor']}" if "processor" in about else ""
        said += _line(about)
        if worker.state == "out":
            todo = "docs/runbooks/worker.md#onwardworkeroutofservice; its jobs went to others"
            yield Finding("engine", "fail", f"{said}: {worker.reason}", todo)
        elif worker.state != "starting" and about.get("scorer") == "vllm" and checked is None:
            yield Finding("engine", "warn", said, "start it with ONWARD_SELF_CHECK=true: its losses are unproven")
        else:
            yield Finding("engine", "ok", said)
    if several := [f"{name} {' and '.join(sorted(own))}" for name, own in builds.items() if len(own) > 1]:
        yield Finding("engine", "warn", f"different builds: {', '.join(several)}", "an upgrade under way? let it end")
    for model, count in seen.stale_workers.items():
        if count:
            todo = "look at their logs; their jobs are taken over when the lease ends (ONWARD_LEASE_SECONDS)"
            yield Finding("engine", "warn", f"{count} of {model} fell silent", todo)


def _line(about: Mapping[str, Any]) -> str:
    """What a forward of training takes there; nothing where the worker has not said."""
    line = about.get("training")
    if not line:
        return ""
    fixed, token = 1e3 * line["fixed_seconds"], 1e3 * line["token_seconds"]
    return f", a forward {fixed:.3g} ms and {token:.3g} ms a scored token (within {line['error']:.0%})"


def _queue(_: Session, seen: Overview) -> Iterator[Finding]:
    for model in sorted({model for model, _ in seen.jobs}):
        queued, running = seen.jobs.get((model, "queued"), 0), seen.jobs.get((model, "running"), 0)
        serving = seen.workers.get((model, "ready"), 0) + seen.workers.get((model, "starting"), 0)
        waited = seen.oldest_queued.get(model, 0.0)
        found = (
            f"{model}: {queued} queued, {running} running, {serving} workers, {seen.backlog_tokens[model]} tokens left"
        )
        if not serving:
            mark: Mark = "fail" if queued + running else "warn"
            yield Finding("queue", mark, found, f"start a worker: ONWARD_MODEL={model} python -m worker")
        elif waited > WAIT_SECONDS:
            todo = f"the oldest waits for {show.span(waited)}: add workers, or see docs/runbooks/queue.md"
            yield Finding("queue", "warn", found, todo)
        else:
            yield Finding("queue", "ok", found)
