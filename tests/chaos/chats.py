"""A storm over chats: two workers of one base are killed in turn, a job trains on them, and tenants ask, whole and in
streams, through the unmodified client with its own retries. What each answer came to is compared with the one alone."""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
from openai import OpenAI

from tests.chaos.fleet import Fleet, Post, fleet
from tests.chaos.storm import tenant_of
from tests.service.conftest import rows
from tests.service.processes import preload_engines
from tests.service.stage import SERVES
from tests.waiting import HANG, until

MODEL = "chats"
ENV = SERVES | {"ONWARD_SELF_CHECK": "false", "ONWARD_SERVE_DRAIN_SECONDS": "1"}
ASKERS = 6  # requests under way at one time
THINKS = 0.3  # seconds at most between two requests of an asker
LONGEST = 2.0  # seconds at most from a kill's turn to the kill
ABOUT = {"batch_size": 4, "rank": 2, "alpha": 4.0, "targets": ["q_proj", "v_proj"], "seed": 7, "method": "mezo",
         "eps": 1e-2, "eval_every": 20, "eval_rows": 8}  # fmt: skip
PROMPTS = ("the film was", "What is the capital of France?", "yes or no?", "The quick brown fox", "0 1 2 3", "great")


@dataclass(frozen=True)
class Question:
    model: str
    words: str
    most: int  # tokens of the answer

    def fields(self) -> dict[str, Any]:
        """At temperature 0, and without an end of its own: what is cut must be seen to be."""
        messages = [{"role": "user", "content": self.words}]
        endless = {"logit_bias": {"2": -100}}
        return {"model": self.model, "messages": messages, "max_tokens": self.most, "temperature": 0} | endless


@dataclass
class Tally:
    """What became of the requests. `of` counts outcomes; `wrong` and `failed` say which, for who looks into it; `live`
    are answers of a job that trains, by the name of the step that spoke."""

    of: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    live: list[tuple[Question, str]] = field(default_factory=list)
    kills: int = 0
    seconds: float = 0.0
    slowest: float = 0.0

    @property
    def requests(self) -> int:
        return sum(self.of.values())

    @property
    def figures(self) -> dict[str, Any]:
        return {
            "kills": self.kills, "requests": self.requests, **self.of, "seconds": round(self.seconds),
            "slowest answer (s)": round(self.slowest, 1), "answers of a job that trains": len(self.live),
        }  # fmt: skip


@dataclass
class Asker:
    """One after the other, until `over`: each request is one of the questions, streamed or whole."""

    client: OpenAI
    questions: list[Question]
    alone: dict[Question, str]
    tally: Tally
    lock: threading.Lock
    over: threading.Event
    chance: random.Random

    def run(self) -> None:
        while not self.over.wait(self.chance.random() * THINKS):
            question, begun = self.chance.choice(self.questions), time.monotonic()
            try:
                outcome = (self.streamed if self.chance.random() < 0.5 else self.whole)(question)
            except Exception as error:  # nothing but what `streamed` and `whole` know of is to come
                outcome = self.failed(question, error)
            with self.lock:
                self.tally.of[outcome] += 1
                self.tally.slowest = max(self.tally.slowest, time.monotonic() - begun)

    def whole(self, question: Question) -> str:
        try:
            answer = self.client.chat.completions.create(**question.fields())
        except openai.ConflictError:  # its job was between two workers
            return "not live"
        said = answer.choices[0].message.content or ""
        return self.judged(question, answer.model, said, answer.choices[0].finish_reason, "whole")

    def streamed(self, question: Question) -> str:
        try:
            stream = self.client.chat.completions.create(**question.fields(), stream=True)
        except openai.ConflictError:
            return "not live"
        said, name, ends, parts = "", "", None, 0
        try:
            for part in stream:
                parts, name = parts + 1, part.model
                for choice in part.choices:
                    said, ends = said + (choice.delta.content or ""), choice.finish_reason or ends
        except openai.APIError as error:
            if not parts:
                raise
            return self.cut(question, said, error)
        return self.judged(question, name, said, ends, "streamed")

    def cut(self, question: Question, said: str, error: openai.APIError) -> str:
        """After the first byte: an error that says so, and what was said until then is right."""
        expected = self.alone.get(question)
        told = isinstance(error.body, dict) and error.body.get("code") in ("worker_failed", "draining")
        right = expected is None or expected.startswith(said.rstrip("�"))
        if told and right:
            return "cut, and said so"
        return self.noted(f"{question}: cut with {error.body!r} after {said!r}")

    def judged(self, question: Question, name: str, said: str, ends: str | None, how: str) -> str:
        expected = self.alone.get(question)
        if expected is None:
            with self.lock:
                self.tally.live.append((Question(name, question.words, question.most), said))
            expected = said
        if (said, ends) == (expected, "length"):
            return how
        return self.noted(f"{question}: {ends} with {said!r}, not {expected!r}")

    def noted(self, what: str) -> str:
        with self.lock:
            self.tally.wrong.append(what)
        return "wrong"

    def failed(self, question: Question, error: Exception) -> str:
        with self.lock:
            self.tally.failed.append(f"{question}: {type(error).__name__}: {error}"[:500])
        return "failed before the first byte"


def stormed(seed: int, *, kills: int, requests: int, logs: Path | None = None) -> Tally:
    """So many kills over at least so many requests, two workers, never both away."""
    chance = random.Random(seed)
    preload_engines()
    with fleet([MODEL], logs) as made:
        made.posts += [Post(MODEL, "vllm", ENV, fork=True) for _ in range(2)]
        made.all_ready()
        secret = tenant_of(made, "chatter")
        client = OpenAI(base_url=f"{made.url}/v1", api_key=secret, timeout=HANG)  # and its two retries
        adapter = trained(made, client, 40)
        live, job = learning(made, client)
        names = [MODEL, adapter, f"{adapter}:ckpt-step-20"]
        fixed = [Question(n, words, 8 + 24 * i) for n in names for i, words in enumerate(PROMPTS)]
        alone = {question: answer(client, question) for question in fixed}
        assert len({said for question, said in alone.items() if question.words == PROMPTS[1]}) > 1, "all are one voice"
        tally, lock, over = Tally(), threading.Lock(), threading.Event()
        questions = [*fixed, *(Question(live, words, 30) for words in PROMPTS)]
        askers = [
            Asker(client, questions, alone, tally, lock, over, random.Random(chance.random())) for _ in range(ASKERS)
        ]
        threads = [threading.Thread(target=asker.run, daemon=True) for asker in askers]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for _ in range(kills):
            kill(made, tally, requests // kills, chance)
        until(lambda: tally.requests >= requests, f"{requests} requests")
        over.set()
        for thread in threads:
            thread.join(HANG)
        tally.of["hung"] = sum(thread.is_alive() for thread in threads)
        tally.seconds = time.monotonic() - begun
        client.fine_tuning.jobs.cancel(job)
        repeated(client, tally)
        return tally


def kill(made: Fleet, tally: Tally, share: int, chance: random.Random) -> None:
    """One of two that serve, at a moment of chance; then its place is filled again."""
    made.all_ready()
    since = tally.requests
    until(lambda: tally.requests >= since + share // 2, "some are answered")
    time.sleep(chance.random() * LONGEST)
    made.dismiss(chance.choice(made.posts))
    tally.kills += 1
    made.tend()
    made.all_ready()


def answer(client: OpenAI, question: Question) -> str:
    return client.chat.completions.create(**question.fields()).choices[0].message.content or ""


def repeated(client: OpenAI, tally: Tally) -> None:
    """What a job said as it learned is asked again by the name of the step: twenty of them."""
    for question, said in tally.live[:: max(1, len(tally.live) // 20)]:
        if (again := answer(client, question)) != said:
            tally.wrong.append(f"{question}: {said!r} as it learned, {again!r} now")


def trained(made: Fleet, client: OpenAI, steps: int) -> str:
    """The name of an adapter that was trained for so many steps."""
    job = submitted(client, steps, 0.1)
    made.ended(job, "succeeded")
    name = client.fine_tuning.jobs.retrieve(job).fine_tuned_model
    assert name is not None
    return name


def learning(made: Fleet, client: OpenAI) -> tuple[str, str]:
    """The live name of a job that trains on through the storm, and its id."""
    job = submitted(client, 100_000, 1e-2)
    made.reached(job, 1)
    return client.fine_tuning.jobs.retrieve(job).model_extra["onward"]["live_model"], job


def submitted(client: OpenAI, steps: int, rate: float) -> str:
    train, valid = (
        client.files.create(file=("rows.jsonl", data), purpose="fine-tune").id for data in (rows(16), rows(8, 100))
    )
    about = {"onward": ABOUT | {"steps": steps, "learning_rate": rate}}
    return client.fine_tuning.jobs.create(model=MODEL, training_file=train, validation_file=valid, extra_body=about).id


__all__ = ("Tally", "stormed")
