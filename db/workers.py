"""Workers and their heartbeats, by the database's clock. Knows no job."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.orm import Session

from db.ids import new_id
from db.one_trip import Read
from db.tables import Worker

State = Literal["starting", "ready", "out", "draining", "gone"]
Takes = Literal["forward", "autograd", "all"]
FRESH_SECONDS = 10.0


@dataclass(frozen=True)
class Rates:
    """Scored tokens a second of a model: of one worker, and of all that live, at least one. `measured` by those that
    live; else what one that has ended had measured."""

    each: float
    whole: float
    measured: bool


@dataclass(frozen=True)
class Server:
    """A worker that serves, and what it last said of it: url, held, queued_tokens, tools, answer."""

    worker: str
    serving: dict[str, Any]


def register(
    session: Session,
    *,
    model: str,
    host: str,
    pid: int,
    capacity: int = 0,
    about: dict[str, Any] | None = None,
    takes: Takes = "forward",
) -> str:
    """A new worker in state `starting`; returns its id. Every process start is a new worker. It `takes` jobs of forward
    passes, those that need derivatives, or all."""
    about = about or {}
    worker = Worker(id=new_id("wrk_"), model=model, host=host, pid=pid, capacity=capacity, about=about, takes=takes)
    session.add(worker)
    session.flush()
    return worker.id


def beat(
    session: Session,
    worker_id: str,
    *,
    state: State | None = None,
    capacity: int | None = None,
    about: dict[str, Any] | None = None,
    rate: float | None = None,
    serving: dict[str, Any] | None = None,
) -> bool:
    """Refreshes the heartbeat and whatever is given; `rate` is in scored tokens a second, `serving` what it serves and
    where (an empty one: it serves no more). False: there is no such worker."""
    given: dict[str, Any] = {"state": state, "capacity": capacity, "about": about, "rate": rate}
    values = {name: value for name, value in given.items() if value is not None}
    if serving is not None:
        values["serving"] = serving or None
    found = update(Worker).where(Worker.id == worker_id).values(heartbeat_at=func.clock_timestamp(), **values)
    return session.execute(found.returning(Worker.id)).first() is not None


def out(session: Session, worker_id: str, reason: str) -> None:
    """The worker lives and takes no work, for this reason."""
    beat(session, worker_id, state="out")
    _say(session, worker_id, reason)


def back(session: Session, worker_id: str) -> None:
    """What kept the worker from its work is over."""
    beat(session, worker_id, state="ready")
    _say(session, worker_id, None)


def leave(session: Session, worker_id: str, reason: str | None = None) -> None:
    """The worker has ended in order; `reason` is why, where it was out of service."""
    beat(session, worker_id, state="gone", serving={})
    _say(session, worker_id, reason)


def _say(session: Session, worker_id: str, reason: str | None) -> None:
    session.execute(update(Worker).where(Worker.id == worker_id).values(reason=reason))


def serving(session: Session, model: str, fresh_seconds: float = FRESH_SECONDS, autograd: bool | None = None) -> bool:
    """Whether some worker of `model` that starts or is ready has beaten within `fresh_seconds`: one that takes jobs
    which need derivatives, or those that do not, where that is said."""
    mine = _fresh(fresh_seconds).where(Worker.model == model)
    if autograd is not None:
        mine = mine.where(_takes(autograd))
    return session.scalar(select(mine.exists())) or False


def dtypes(session: Session, model: str, fresh_seconds: float = FRESH_SECONDS) -> frozenset[str]:
    """In what the fresh workers of `model` that take jobs of forward passes compute; one that still starts does not
    say."""
    mine = _fresh(fresh_seconds).where(Worker.model == model, _takes(False))
    said = session.scalars(mine.with_only_columns(Worker.about["dtype"].as_string()).distinct())
    return frozenset(dtype for dtype in said if dtype is not None)


def count(session: Session, model: str, fresh_seconds: float = FRESH_SECONDS) -> int:
    """How many workers of `model` that start or are ready have beaten within `fresh_seconds`."""
    fresh = _fresh(fresh_seconds).where(Worker.model == model)
    return session.scalar(select(func.count()).select_from(fresh.subquery())) or 0


def rates(session: Session, model: str, autograd: bool = False, fresh_seconds: float = FRESH_SECONDS) -> Rates | None:
    """How fast jobs of `model` go that need derivatives, or that do not; None where no worker that takes them and is
    known has ever scored."""
    mine = Worker.model == model, _takes(autograd)
    of_live = select(func.count(), func.avg(Worker.rate)).where(Worker.id.in_(_fresh(fresh_seconds)))
    live, mean = session.execute(of_live.where(*mine)).one()
    if mean is not None:
        return Rates(mean, mean * live, True)
    known = select(Worker.rate).where(*mine, Worker.rate.is_not(None))
    last = session.scalar(known.order_by(Worker.heartbeat_at.desc()).limit(1))
    return None if last is None else Rates(last, last * max(live, 1), False)


def served(session: Session, fresh_seconds: float = FRESH_SECONDS) -> set[tuple[str, bool]]:
    """The models with a starting or ready worker that has beaten within `fresh_seconds`, each with whether the jobs
    that such a one takes need derivatives."""
    found = session.execute(_fresh(fresh_seconds).with_only_columns(Worker.model, Worker.takes).distinct())
    return {(model, kind) for model, takes in found for kind in kinds(takes)}


def serve() -> Read:
    """What `servers` are of."""
    return _SERVE


def servers(rows: Iterable[Sequence[Any]], model: str) -> list[Server]:
    """The workers that are ready, serve chats of `model` and have beaten within FRESH_SECONDS; of the rows of
    `serve`, which are of every model: whose is asked for may be known only with them."""
    return [Server(worker, serving) for worker, of, serving in rows if of == model and serving]


def kinds(takes: str) -> tuple[bool, ...]:
    """Whether the jobs need derivatives that a worker takes."""
    return {"forward": (False,), "autograd": (True,)}.get(takes, (False, True))


def _takes(autograd: bool) -> ColumnElement[bool]:
    return Worker.takes.in_(("autograd" if autograd else "forward", "all"))


def _fresh(seconds: float) -> Any:
    since = func.clock_timestamp() - text("make_interval(secs => :fresh)").bindparams(fresh=seconds)
    return select(Worker.id).where(Worker.state.in_(("starting", "ready")), Worker.heartbeat_at > since)


_SERVE = Read.of(
    select(Worker.id, Worker.model, Worker.serving)
    .where(Worker.id.in_(_fresh(FRESH_SECONDS)), Worker.state == "ready", Worker.serving.is_not(None))
    .order_by(Worker.id)
)
