"""A storm: the plan's events, each at its progress, then calm until every job has ended. Knows no invariant."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from sqlalchemy import select, update

from db.tables import ENDED, Job
from db.tables import Tenant as TenantRow
from db.tenant import keys
from tests.chaos import faults
from tests.chaos.fleet import Fleet
from tests.chaos.plan import Event, Plan
from tests.chaos.traffic import Entry, Traffic, clear
from tests.waiting import HANG, until

HANDS = 16  # threads that carry the tenants' requests


@dataclass
class Seen:
    """What was watched while it stormed: the highest step of each job that was ever committed, what was injected (kind,
    begin and end in time.monotonic() seconds), and how long `/readyz` took at most outside of outages."""

    steps: dict[str, int] = field(default_factory=dict)
    injected: list[tuple[str, float, float]] = field(default_factory=list)
    seconds: float = 0.0


class Watch(threading.Thread):
    """Looks at the jobs' steps all the time."""

    def __init__(self, fleet: Fleet, seen: Seen) -> None:
        super().__init__(name="watch", daemon=True)
        self._fleet, self._seen, self.over = fleet, seen, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            found = self._fleet.answered(lambda session: session.execute(select(Job.id, Job.step)).all())
            for job, step in found or ():
                self._seen.steps[job] = max(step, self._seen.steps.get(job, 0))


class Storm:
    """One run of a plan over a fleet. `cap` seconds after the start no fault is injected any more."""

    def __init__(self, fleet: Fleet, plan: Plan, cap: float = HANG) -> None:
        self.fleet, self.plan, self.cap = fleet, plan, cap
        secrets = [tenant_of(fleet, f"storm-{number}") for number in range(plan.tenants)]
        self.traffic = Traffic(fleet.url, secrets, [Entry(s) for s in plan.submissions])
        self.seen = Seen()
        self._hands = ThreadPoolExecutor(HANDS, "traffic")
        self._last: dict[int, Future[None]] = {}  # of each submission, its last request: the next waits for it
        self._others: list[Future[None]] = []

    def run(self) -> None:
        """Returns when every job has ended. Raises AssertionError where it hangs."""
        begun = time.monotonic()
        watch = Watch(self.fleet, self.seen)
        watch.start()
        try:
            for event in self.plan.events:
                until(lambda event=event: self._due(event), f"progress {event.at:.2f}")
                if event.what == "fault":
                    self._fault(event, begun)
                else:
                    self._request(event)
            self._calm()
        finally:
            self._hands.shutdown(wait=True, cancel_futures=True)
            watch.over.set()
            watch.join()
            self.seen.seconds = time.monotonic() - begun

    def progress(self) -> int | None:
        """Steps committed, of all that were planned."""
        return self.fleet.done(self._jobs())

    def _due(self, event: Event) -> bool:
        """Its progress is reached, or will not be: nothing that was asked for can go on."""
        self.fleet.tend()
        done = self.progress()
        if done is not None and done >= event.at * self.plan.steps:
            return True
        busy = any(not f.done() for f in (*self._last.values(), *self._others))
        return not busy and done is not None and not self.fleet.restless(self._jobs())

    def _jobs(self) -> list[str]:
        return [job for entry in self.traffic.entries for job in list(entry.ids)]

    def _fault(self, event: Event, begun: float) -> None:
        if time.monotonic() - begun > self.cap:
            return
        post = self.fleet.posts[event.who]
        started = time.monotonic()
        faults.DO[event.how](self.fleet, post, self.progress)
        self.seen.injected.append((event.how, started, time.monotonic()))

    def _request(self, event: Event) -> None:
        """Handed to a thread: requests are under way while faults happen."""
        if event.what in ("trespass", "malformed"):
            act = self.traffic.snoop if event.what == "trespass" else self.traffic.babble
            self._others.append(self._hands.submit(act, event.who))
            return
        entry, before = self.traffic.entries[event.who], self._last.get(event.who)

        def act_in_turn() -> None:
            if before is not None:
                before.result()
            if event.what == "submit":
                self.traffic.submit(entry)
            else:
                self.traffic.steer(entry, event.what)

        self._last[event.who] = self._hands.submit(act_in_turn)

    def _calm(self) -> None:
        for future in (*self._last.values(), *self._others):
            until(lambda future=future: (self.fleet.tend(), future.done())[1], "a request is answered")
            future.result()
        until(self._over, self._unfinished)
        self.fleet.all_ready()

    def _over(self) -> bool:
        """All have ended; who is still paused, since its resume came before its pause was obeyed, is resumed."""
        self.fleet.tend()
        states = self.fleet.answered(
            lambda session: dict(session.execute(select(Job.id, Job.state).where(Job.id.in_(self._jobs()))).all())
        )
        for entry in self.traffic.entries:
            if states and entry.ids and states[entry.ids[0]] == "paused":
                self.traffic.steer(entry, "resume")
        return states is not None and all(state in ENDED for state in states.values())

    def _unfinished(self) -> str:
        left = [job for job in self._jobs() if self.fleet.job(job).state not in ENDED]
        return f"the end of {left}"

    def still_has_its_files(self, entry: Entry) -> bool:
        deleted = {event.who for event in self.plan.events if event.what == "delete file"}
        return entry.submission.number not in deleted

    def alone(self, entry: Entry) -> str:
        """The same job again, with nobody beside it; its id once it has ended. Same bytes, same seed."""
        client, first = self.traffic.clients[entry.submission.tenant], entry.ids[0]
        with self.fleet.factory.begin() as session:
            job = session.get_one(Job, first)
            asked = dict(job.request)
            training, validation = job.training_file, job.validation_file
        body = {"model": asked["model"], "training_file": training, "validation_file": validation}
        twin, _ = clear(lambda: client.fine_tuning.jobs.create(**body, extra_body={"onward": asked["onward"]}))
        until(lambda: (self.fleet.tend(), self.fleet.job(twin.id).state in ENDED)[1], f"{twin.id} ends")
        return str(twin.id)


def tenant_of(fleet: Fleet, name: str) -> str:
    """The secret of a new tenant that may have as many jobs as it likes."""
    with fleet.factory.begin() as session:
        made = keys.create(session, name)
        session.execute(update(TenantRow).where(TenantRow.id == made.id).values(max_jobs=100_000))
        return keys.create_key(session, made.id)[1]
