"""What tenants do in a storm, through openai clients: submit, steer, trespass, send nonsense. Knows no fault.

Every answer is noted with its time; an answer that is none (5xx, a cut connection, 429) is asked for again.
"""

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import openai
from openai import OpenAI

from tests.chaos.plan import Submission
from tests.service.conftest import rows
from tests.waiting import HANG

T = TypeVar("T")
PATIENCE = 60.0  # seconds that one request may take


@dataclass(frozen=True)
class Answer:
    """One request's. `status` 0: none came. Times are time.monotonic()."""

    status: int
    what: str
    begun: float
    ended: float


@dataclass
class Entry:
    """What is known of one submission from outside. `cancel` is "", "accepted", "refused", or "unclear" where the
    first answer was lost."""

    submission: Submission
    ids: list[str] = field(default_factory=list)
    refused: str = ""
    cancel: str = ""
    files: list[str] = field(default_factory=list)


@dataclass
class Trespass:
    """Attempts on what is another's. `leaks` are those that were not refused as unknown."""

    attempts: int = 0
    leaks: list[str] = field(default_factory=list)


class Recorded(httpx.BaseTransport):
    """Passes requests on and notes the answers."""

    def __init__(self, answers: list[Answer]) -> None:
        self._inner, self._answers = httpx.HTTPTransport(), answers

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        begun, status = time.monotonic(), 0
        try:
            response = self._inner.handle_request(request)
            status = response.status_code
            return response
        finally:
            what = f"{request.method} {request.url.path}"
            self._answers.append(Answer(status, what, begun, time.monotonic()))

    def close(self) -> None:
        self._inner.close()


@dataclass
class Traffic:
    """The tenants' side of a storm. `secrets` are the keys of the tenants, by their number."""

    url: str
    secrets: list[str]
    entries: list[Entry]
    answers: list[Answer] = field(default_factory=list)
    trespass: Trespass = field(default_factory=Trespass)
    odd: list[str] = field(default_factory=list)  # nonsense that was not refused, ids that differ

    def __post_init__(self) -> None:
        self.clients = [self.client(secret) for secret in self.secrets]
        self._lock = threading.Lock()

    def client(self, secret: str) -> OpenAI:
        http = httpx.Client(transport=Recorded(self.answers), timeout=PATIENCE)
        return OpenAI(base_url=f"{self.url}/v1", api_key=secret, max_retries=0, timeout=PATIENCE, http_client=http)

    def submit(self, entry: Entry) -> None:
        """The job of `entry`, POSTed so many times at once under one idempotency key."""
        asked, client = entry.submission, self.clients[entry.submission.tenant]
        for count, start in ((24, 0), (8, 100)):
            file = ("rows.jsonl", rows(count, start=start + 7 * asked.number))
            made, _ = clear(lambda file=file: client.files.create(file=file, purpose="fine-tune"))
            entry.files.append(made.id)
        answers: list[Any] = [None] * asked.times
        threads = [threading.Thread(target=self._post, args=(entry, answers, i)) for i in range(asked.times)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        entry.ids = sorted({a for a in answers if a})
        if len(entry.ids) > 1 or None in answers:
            self.odd.append(f"submission {asked.number} was answered {answers} {entry.refused}")

    def _post(self, entry: Entry, answers: list[Any], place: int) -> None:
        asked, client = entry.submission, self.clients[entry.submission.tenant]
        own = {
            "steps": asked.steps, "batch_size": asked.batch_size, "rank": asked.rank, "alpha": 4.0, "seed": asked.seed,
            "targets": ["q_proj", "v_proj"], "method": "mezo", "eps": 1e-2, "eval_every": 20, "eval_rows": 8,
            "learning_rate": 1e-2,
        }  # fmt: skip
        if asked.wild:
            own |= WILD[asked.number // 10 % len(WILD)]

        def create() -> Any:
            return client.fine_tuning.jobs.create(
                model=asked.model,
                training_file=entry.files[0],
                validation_file=entry.files[1],
                extra_body={"onward": own},
                extra_headers={"Idempotency-Key": f"storm-{asked.number}"},
            )

        try:
            answers[place] = clear(create)[0].id
        except openai.APIStatusError as error:
            entry.refused = f"{error.status_code} {error.message}"[:300]
            answers[place] = "" if asked.wild else None

    def steer(self, entry: Entry, how: str) -> None:
        """Pause, resume, cancel, or delete the training file. A job that has ended refuses, and may."""
        if not entry.ids:
            return
        client, job = self.clients[entry.submission.tenant], entry.ids[0]
        act: Callable[[], Any] = {
            "pause": lambda: client.fine_tuning.jobs.pause(job),
            "resume": lambda: client.fine_tuning.jobs.resume(job),
            "cancel": lambda: client.fine_tuning.jobs.cancel(job),
            "delete file": lambda: client.files.delete(entry.files[0]),
        }[how]
        try:
            _, tries = clear(act)
            verdict = "accepted"
        except (openai.ConflictError, openai.NotFoundError) as error:
            _, tries = error, getattr(error, "tries", 1)
            verdict = "refused" if tries == 1 else "unclear"
            if isinstance(error, openai.NotFoundError) and tries == 1:
                self.odd.append(f"{how} of {job}: not found")
        if how == "cancel":
            entry.cancel = verdict

    def snoop(self, tenant: int) -> None:
        """As `tenant`, every route that has a place for an id, with ids of another, a job on another's file, a list."""
        foreign = [e for e in self.entries if e.ids and e.submission.tenant != tenant]
        if not foreign:
            return
        other = foreign[(7 * tenant) % len(foreign)]
        job, _ = clear(lambda: self.clients[other.submission.tenant].fine_tuning.jobs.retrieve(other.ids[0]))
        values = {"job_id": job.id, "file_id": (job.result_files or other.files)[0]}
        name = job.fine_tuned_model or "ft:plain:x::x"
        secret = self.secrets[tenant]
        for path, methods in sorted(self.ask(secret, "GET", "/openapi.json").json()["paths"].items()):
            places = re.findall(r"{(\w+)}", path)
            filled = path
            for place in places:
                filled = filled.replace("{" + place + "}", values.get(place, name))
            for method in sorted(methods) if places else ():
                self._try(secret, method, filled, None)
        self._try(secret, "post", JOBS, {"model": job.model, "training_file": other.files[0]})
        listed = self.ask(secret, "GET", f"{JOBS}?limit=100").text + self.ask(secret, "GET", "/v1/models").text
        listed += self.ask(secret, "GET", "/v1/files").text
        theirs = {i for e in foreign for i in (*e.ids, *e.files)} | {name}
        with self._lock:
            self.trespass.attempts += 3
            self.trespass.leaks += [f"tenant {tenant} is shown {x} in a list" for x in theirs if x in listed]

    def _try(self, secret: str, method: str, path: str, body: Any) -> None:
        found = self.ask(secret, method.upper(), path, body)
        with self._lock:
            self.trespass.attempts += 1
            if found.status_code not in REFUSED:
                self.trespass.leaks.append(f"{method} {path}: {found.status_code} {found.text[:80]}")

    def ask(self, secret: str, method: str, path: str, body: Any = None) -> httpx.Response:
        """One clear answer to a plain request."""
        ends = time.monotonic() + HANG
        with httpx.Client(transport=Recorded(self.answers), timeout=PATIENCE, base_url=self.url) as http:
            while True:
                try:
                    found = http.request(method, path, json=body, headers={"authorization": f"Bearer {secret}"})
                    if found.status_code < 500 and found.status_code != 429:
                        return found
                except httpx.TransportError:
                    pass
                assert time.monotonic() < ends, f"no clear answer to {method} {path}"
                time.sleep(0.1)

    def babble(self, tenant: int) -> None:
        """Requests that make no sense: each is refused, none with a 5xx, nothing is queued."""
        secret = self.secrets[tenant]
        with httpx.Client(transport=Recorded(self.answers), timeout=PATIENCE, base_url=self.url) as http:
            for number, (method, path, kind, content) in enumerate(NONSENSE):
                headers = {"authorization": f"Bearer {secret}", "content-type": kind}
                try:
                    status = http.request(method, path, content=content, headers=headers).status_code
                except httpx.TransportError:
                    continue
                if status < 400:
                    self.odd.append(f"nonsense {number} ({method} {path}) was answered {status}")


# Where they are not refused, losses stop being finite, or come to nothing: that run's matter alone.
WILD: list[dict[str, float]] = [{"eps": 1.0, "alpha": 6e38}, {"learning_rate": 1e30}, {"learning_rate": 100.0}]
REFUSED = (400, 401, 403, 404, 405, 422)
JSON, FORM = "application/json", "multipart/form-data; boundary=x"
JOBS = "/v1/fine_tuning/jobs"
NONSENSE: list[tuple[str, str, str, bytes]] = [
    ("POST", JOBS, JSON, b'{"model": "plain", "training_file"'),
    ("POST", JOBS, JSON, b"[" * 10_000),
    ("POST", JOBS, JSON, b'{"model": "plain", "training_file": "file-x", "onward": {"alpha": NaN}}'),
    ("POST", JOBS, JSON, b'{"model": "plain", "training_file": "file-x", "onward": {"steps": 1e999}}'),
    ("POST", JOBS, JSON, json.dumps({"model": "\0", "training_file": "../../etc/passwd"}).encode()),
    ("POST", JOBS, JSON, b"\xff\xfe\x00"),
    ("POST", JOBS + "/..%2f..%2fetc/cancel", JSON, b""),
    ("GET", JOBS + "?limit=-1", JSON, b""),
    ("GET", JOBS + "?after=%00", JSON, b""),
    ("GET", "/v1/files/" + "a" * 5000, JSON, b""),
    ("POST", "/v1/files", FORM, b"--x\r\nContent-Disposition: form-data"),
    ("POST", "/v1/files", FORM, b"no boundary at all"),
    ("POST", "/v1/files", JSON, b"{}"),
    (
        "POST", "/v1/files", FORM,
        b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="../../x"\r\n\r\n{"prompt": 1}\r\n--x--\r\n',
    ),
]  # fmt: skip


def clear(act: Callable[[], T]) -> tuple[T, int]:
    """The first clear answer, and how many times it was asked for. Raises the APIStatusError of a refusal, which then
    carries `tries`."""
    ends, tries = time.monotonic() + HANG, 0
    while True:
        tries += 1
        try:
            return act(), tries
        except openai.APIConnectionError:
            pass
        except openai.APIStatusError as error:
            if error.status_code < 500 and error.status_code != 429:
                error.tries = tries  # type: ignore[attr-defined]
                raise
        assert time.monotonic() < ends, "no clear answer"
        time.sleep(0.1)
