"""What every fixed case stands on: a shared fleet, an adversary, a bystander, claims. Knows no case.

Nothing waits for ever here: a case says "broken" within its own patience, however the service behaves.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
from openai import OpenAI
from sqlalchemy import func, select, text, update

from db.ids import new_id
from db.tables import ENDED, Job, JournalStep, Tenant
from db.tenant import keys
from tests.chaos.fleet import Fleet, Post
from tests.service.conftest import rows
from tests.waiting import HANG

SLICE = 3.0  # seconds, as in service: waits are told in these
PATIENCE = 120.0  # seconds for what takes a few
FOREVER = 100_000  # steps
CASE = {
    "ONWARD_SLICE_SECONDS": str(SLICE),
    "ONWARD_LEASE_SECONDS": "4",
    "ONWARD_MAX_ATTEMPTS": "3",
    "ONWARD_COHORT": "8",
}


class NotPlayed(Exception):
    """This machine cannot play the case, and the message says why: it neither holds nor is broken."""


@dataclass(frozen=True)
class Claim:
    """What should hold, whether it did, and the number that says so."""

    what: str
    held: bool
    measured: str


@dataclass
class Held:
    """What a case found."""

    number: int
    name: str
    claims: list[Claim] = field(default_factory=list)
    seconds: float = 0.0
    not_played: str | None = None  # why this machine cannot

    @property
    def held(self) -> bool:
        return all(claim.held for claim in self.claims)

    @property
    def verdict(self) -> str:
        return "not played" if self.not_played else "held" if self.held else "BROKEN"


def within(true: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The first truth that `true` tells in so many seconds, or its last word."""
    ends = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < ends:
        time.sleep(0.05)
    return found


class Patient(httpx.BaseTransport):
    """Waits where it is told to (429 with Retry-After): cases are quick, and rates are not what most are about."""

    def __init__(self) -> None:
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        ends = time.monotonic() + PATIENCE
        while True:
            response = self._inner.handle_request(request)
            after = response.headers.get("retry-after", "")
            if response.status_code != 429 or not after.isdecimal() or time.monotonic() > ends:
                return response
            response.close()
            time.sleep(min(int(after), 10))


@dataclass
class Ground:
    """The stage of all cases; each has a base model's name, and so a queue, of its own."""

    fleet: Fleet
    model: str = ""

    @contextmanager
    def crew(self, *posts: Post) -> Iterator[None]:
        """Workers at these posts, replaced where they end, until the case is over."""
        self.fleet.posts = list(posts)
        try:
            self.fleet.tend()
            yield
        finally:
            for post in posts:
                self.fleet.dismiss(post)
            self.fleet.posts = []

    def post(self, scorer: str = "torch", main: str = "worker", **env: str) -> Post:
        """A place for a worker of this case's model."""
        return Post(self.model, scorer, CASE | env, main)

    def ready(self, post: Post, seconds: float = PATIENCE) -> bool:
        """Whether its worker came to serve; who ends while it starts is replaced."""

        def serves() -> bool:
            self.fleet.tend()
            return post.process is not None and bool(post.process.lines("ready"))

        return bool(within(serves, seconds))

    def tenant(self, name: str, weight: float = 1.0) -> OpenAI:
        with self.fleet.factory.begin() as session:
            made = keys.create(session, new_id(f"{name}-"), weight=weight)
            session.execute(update(Tenant).where(Tenant.id == made.id).values(max_jobs=100_000))
            secret = keys.create_key(session, made.id)[1]
        http = httpx.Client(transport=Patient(), timeout=PATIENCE)
        return OpenAI(
            base_url=f"{self.fleet.url}/v1", api_key=secret, max_retries=0, timeout=PATIENCE, http_client=http
        )

    def submit(
        self, client: OpenAI, held_out: bool = True, headers: dict[str, str] | None = None, **onward: Any
    ) -> str:
        """A job of the case's model; its id. Without held-out rows it is steps and nothing else."""
        files = {"training_file": self.file(client, rows(24))}
        own: dict[str, Any] = {
            "steps": 200, "batch_size": 4, "rank": 2, "alpha": 4.0, "seed": 7, "targets": ["q_proj", "v_proj"],
            "method": "mezo", "eps": 1e-2, "learning_rate": 1e-2,
        }  # fmt: skip
        if held_out:
            files["validation_file"] = self.file(client, rows(8, start=100))
            own |= {"eval_every": 50, "eval_rows": 8}
        else:
            own["held_out"] = 0
        job = client.fine_tuning.jobs.create(
            model=self.model, extra_body={"onward": own | onward}, extra_headers=headers or {}, **files
        )
        return job.id

    def file(self, client: OpenAI, data: bytes) -> str:
        return client.files.create(file=("rows.jsonl", data), purpose="fine-tune").id

    def over(self, *jobs: str, seconds: float = PATIENCE) -> bool:
        """Whether all of them ended in time, workers being replaced meanwhile."""

        def ended() -> bool:
            self.fleet.tend()
            return all(self.fleet.job(job).state in ENDED for job in jobs)

        return bool(within(ended, seconds))

    def at(self, job: str, step: int, seconds: float = PATIENCE) -> bool:
        """Whether so many steps of it were committed in time."""

        def reached() -> bool:
            self.fleet.tend()
            return self.fleet.job(job).step >= step

        return bool(within(reached, seconds))

    def cancel(self, *jobs: tuple[OpenAI, str]) -> None:
        """End what a case has left running; who ended already is fine."""
        for client, job in jobs:
            if self.fleet.job(job).state not in ENDED:
                client.fine_tuning.jobs.cancel(job)

    def waited(self, job: str) -> float:
        """The longest time in seconds that the job stood still: before its first step, between two, since its last."""
        with self.fleet.factory.begin() as session:
            row = session.get_one(Job, job)
            at = select(JournalStep.created_at).where(JournalStep.job_id == job).order_by(JournalStep.step)
            marks = [row.created_at, *session.scalars(at)]
            now = session.scalar(select(func.clock_timestamp()))
            assert now is not None
            marks.append(row.finished_at or now)
        return max((b - a).total_seconds() for a, b in pairwise(marks))

    def waits(self, job: str, alone: float, what: str = "bystander waits at most two slices") -> Claim:
        """Beyond what the same job stands still with nobody beside it, on this machine: `alone` seconds."""
        slices = max(0.0, self.waited(job) - alone) / SLICE
        return Claim(what, slices <= 2, f"{slices:.2f} slices")

    def state(self, job: str, wanted: str, what: str, code: str = "") -> Claim:
        row = self.fleet.job(job)
        found = (row.error or {}).get("code", "")
        shown = f"{row.state} {found}".strip()
        return Claim(what, row.state == wanted and (not code or found == code), f"{shown}, step {row.step}")

    def whole(
        self, client: OpenAI, *jobs: str, what: str = "bystander loses no step and its adapter is its replay"
    ) -> Claim:
        """Each job succeeded: every step is in its journal once and paid once, and the journal gives its adapter."""
        broken = []
        for job in jobs:
            row = self.fleet.job(job)
            if row.state != "succeeded":
                broken.append(f"{row.state} {(row.error or {}).get('code', '')} at step {row.step}".strip())
                continue
            try:
                self.fleet.whole(client, job)
            except AssertionError as error:
                broken.append(f"{job} is not whole {error}"[:100])
        return Claim(what, not broken, "; ".join(broken) or f"{len(jobs)} whole")

    def steps(self, jobs: Sequence[str]) -> int:
        return sum(self.fleet.job(job).step for job in jobs)

    def tokens(self, jobs: Sequence[str]) -> int:
        return sum(self.fleet.job(job).scored_tokens for job in jobs)

    def value(self, statement: str) -> Any:
        """What a query says, as the database's owner."""
        return self.fleet.admin(lambda session: session.scalar(text(statement)))

    def execute_alone(self, statement: str) -> None:
        """A statement that no transaction may hold, as the database's owner."""
        self.fleet.alone(statement)

    def execute(self, statement: str, **values: Any) -> None:
        """SQL as the database's owner."""
        self.fleet.admin(lambda session: session.execute(text(statement), values))


__all__ = ("CASE", "FOREVER", "HANG", "PATIENCE", "SLICE", "Claim", "Ground", "Held", "within")
