"""What slices are tested with: a base model without weights, a scorer that computes, a database and a clock that obey.

Knows no engine: nothing here loads a model's library."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from prometheus_client import Counter, Histogram
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE

from db import files
from db.contract import methods
from db.contract.spec import AdapterSpec, JobSpec
from db.contract.tokens.base_model import Base
from db.tenant import jobs
from db.worker.candidates import candidates
from db.worker.journal import Step
from tests.db.inserted import a_tenant
from worker.forwards import Forward, Scoring, finished
from worker.runs import recipes
from worker.runs.replay import Point, replay
from worker.slices.acquire import acquire
from worker.slices.context import Context
from worker.slices.persist import Clock
from worker.slices.resident import LeasedRun
from worker.types import Loss, Trial

STEPS = 6


def base_folder(folder: Path) -> Path:
    """The small files of a llama of one layer, 8 wide, with a tokenizer of bytes."""
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = {"model_type": "llama", "vocab_size": 260, "max_position_embeddings": 64, **sizes}
    (folder / "config.json").write_text(json.dumps(config))
    letters = Tokenizer(BPE())
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    letters.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    letters.save(str(folder / "tokenizer.json"))
    return folder


def rows(count: int) -> bytes:
    """Choice rows, no two alike."""
    lines = [json.dumps({"prompt": f"film {i}:", "choices": [" bad", " good"], "label": i % 2}) for i in range(count)]
    return ("\n".join(lines) + "\n").encode()


def a_choice_job(
    session: Session, model: str, rank: int = 2, valid: bytes | None = None, tenant: str = "", **changes: object
) -> str:
    """A queued job on eight choice rows; `valid` are the bytes of its held-out rows, `changes` are of its spec."""
    tenant = tenant or a_tenant(session)
    about = {"filename": "a.jsonl", "purpose": "fine-tune", "format": "choice", "rows": 8}
    train, held_out = (
        files.create(tenant, session, **about, chunks=[data]).id if data else None for data in (rows(8), valid)
    )
    given = {
        "model": model,
        "objective": "choice",
        "adapter": AdapterSpec(rank=rank, alpha=rank, targets=("q_proj",)),
        "method": methods.settings(name="mezo", eps=1e-2, learning_rate=1e-3),
        "training_file": train,
        "validation_file": held_out,
        "steps": STEPS,
        "batch_size": 2,
        "eval_every": 100,
        "seed": rank,
    }
    request = {"request": {}, "request_hash": "", "price_tokens": 0, "idempotency_key": None}
    return jobs.create(tenant, session, spec=JobSpec.model_validate(given | changes), **request)[0].id


class Bowl:
    """A Scorer whose loss is the squared length of the adapter; `sees` is told each wave of a step first, and may
    raise; `compares` is told those that ask for the drift of what is published, which are no step's, and may too. A
    wave holds trials of `wave` tokens, at least one; `whole` is what it says when asked for its canary."""

    capacity = 16
    rate: float | None = None  # these three as MeteredScorer has them
    stood = 0.0
    serving_since: float | None = None

    def __init__(self, wave: int = 1 << 30) -> None:
        self.whole = True
        self.sees: Callable[[Sequence[Trial]], None] = lambda _: None
        self.compares: Callable[[Sequence[Trial]], None] = lambda _: None
        self.wave = wave

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        return finished(self.start(trials))

    def start(self, trials: Sequence[Trial]) -> Scoring:
        packed: list[list[int]] = []
        for number, trial in enumerate(trials):
            if not packed or sum(trials[n].tokens for n in packed[-1]) + trial.tokens > self.wave:
                packed.append([])
            packed[-1].append(number)
        forwards = [
            Forward(frozenset(w), sum(trials[n].tokens for n in w), partial(self._seen, [trials[n] for n in w]))
            for w in packed
        ]
        return Scoring(forwards, lambda: self._losses(trials))

    def _seen(self, trials: Sequence[Trial]) -> None:
        (self.compares if any(t.drift for t in trials) else self.sees)(trials)

    @staticmethod
    def _losses(trials: Sequence[Trial]) -> list[Loss]:
        return [Loss(float(np.square(t.params).sum()) * len(t.examples), len(t.examples), 0, t.tokens) for t in trials]

    def sound(self) -> bool:
        return self.whole

    def close(self) -> None:
        pass


class Time:
    """A clock that only sleeping, and the test, moves on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.clock = Clock(lambda: self.now, self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Later(Executor):
    """Runs what was submitted when told to, in the caller's thread."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future, object]] = []

    def submit(self, act, /, *args, **kwargs):
        future: Future = Future()
        self.waiting.append((future, lambda: act(*args, **kwargs)))
        return future

    def work(self) -> None:
        for future, act in self.waiting:
            try:
                future.set_result(act())
            except Exception as error:
                future.set_exception(error)
        self.waiting.clear()


class Unreliable:
    """Sessions of a real database whose transactions go as `fates` say, one after the other, and then well.

    "away": nothing reaches the database. "no answer": it commits, and the answer is lost. `meanwhile` is called once,
    after a transaction has committed and before its caller hears of it.
    """

    def __init__(self, factory: sessionmaker[Session], *fates: str) -> None:
        self._factory, self.fates = factory, list(fates)
        self.meanwhile: Callable[[], None] = lambda: None
        self.begun = 0

    @contextmanager
    def begin(self) -> Iterator[Session]:
        self.begun += 1
        fate = self.fates.pop(0) if self.fates else "well"
        if fate == "away":
            raise OperationalError("BEGIN", {}, Exception("connection refused"))
        with self._factory.begin() as session:
            yield session
        act, self.meanwhile = self.meanwhile, lambda: None
        act()
        if fate == "no answer":
            raise OperationalError("COMMIT", {}, Exception("server closed the connection"))


def counted(series: Counter | Histogram) -> float:
    """What a labelled counter stands at, or how often a histogram has observed."""
    (found,) = [x.value for x in series.collect()[0].samples if x.name.endswith(("_total", "_count"))]
    return float(found)


def leased(context: Context, job_id: str) -> LeasedRun | None:
    """The job, acquired by this worker."""
    with context.across() as session:
        (waiting,) = [w for w in candidates(session, context.model) if w.job_id == job_id]
    return acquire(context, waiting)


def scored(run: LeasedRun, upto: int) -> LeasedRun:
    """The run as if its steps up to `upto` had been scored, 7 tokens each, with none of them committed yet."""
    losses = [(1.0 + step, 1.5) for step in range(run.run.step, upto)]
    for number, row in enumerate(losses, start=run.run.step):
        run.writer.add(Step(number, list(row), 7), None, None, 7)
        run.resident.prefix.add(row)
    journal = [*([()] * run.run.step), *losses]  # those before are behind the point it starts from
    run.resident.run = run.run.at(replay(run.run.method, journal, run.run.point))
    return run


def rebuilt(spec: JobSpec, base: Base, journal: Sequence[Sequence[float]], start: Point | None = None) -> Point:
    """What the whole of `journal` leads to."""
    return replay(recipes.method(spec, recipes.layout(spec, base)), journal, start)
