"""Requests as many people send them: streamed, at random times, timed at the client. Knows no training."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import httpx
import numpy as np

AT_ONCE: Final = 64  # that may be under way: beyond it one waits at the client, and its time runs


@dataclass(frozen=True)
class Heard:
    """One answer, in seconds: from when it was to be asked to its first token, between two tokens, and to its end."""

    first: float
    between: tuple[float, ...]
    whole: float


def ask(http: httpx.Client, body: dict[str, Any], due: float | None = None) -> Heard:
    """One request, timed from `due` (time.perf_counter) where that is past: a client that is late hides no wait."""
    begun = time.perf_counter() if due is None else due
    at: list[float] = []
    with http.stream("POST", "completions", json=body | {"stream": True}) as answer:
        if answer.status_code != 200:
            answer.read()
            raise RuntimeError(f"{answer.status_code}: {answer.text[:300]}")
        lines = _noted(answer, at)
    if lines[-1] != "data: [DONE]":
        raise RuntimeError(f"the answer is not whole: {lines[-1][:300]}")
    return Heard(at[0] - begun, tuple(float(gap) for gap in np.diff(at)), at[-1] - begun)


def _noted(answer: httpx.Response, at: list[float]) -> list[str]:
    """The lines of the answer, the time of each that is a token in `at`."""
    lines = []
    for line in answer.iter_lines():
        if line.startswith("data: {"):
            at.append(time.perf_counter())
        if line:
            lines.append(line)
    return lines


def in_turn(http: httpx.Client, bodies: Sequence[dict[str, Any]]) -> list[Heard]:
    """One after another."""
    return [ask(http, body) for body in bodies]


def at_times(http: httpx.Client, bodies: Sequence[dict[str, Any]], rate: float, seed: int) -> list[Heard]:
    """`rate` requests a second on average, none waiting for another (open loop). Exponential gaps of the seed."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, len(bodies))
    start = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as people:
        asked = []
        for body, due in zip(bodies, start + np.cumsum(gaps), strict=True):
            time.sleep(max(0.0, due - time.perf_counter()))
            asked.append(people.submit(partial(ask, http, body, float(due))))
        return [one.result() for one in asked]


def bodies(model: str, count: int, seed: int, tokens: int = 8) -> list[dict[str, Any]]:
    """`count` different prompts of 20 to 90 tokens of the demo base's vocabulary, each answered by exactly `tokens`."""
    rng = np.random.default_rng(seed)
    return [
        {
            "model": model,
            "prompt": rng.integers(100, 20_000, int(rng.integers(20, 91))).tolist(),
            "max_tokens": tokens,
            "temperature": 0,
            "logit_bias": {"0": -100, "2": -100},  # no end of text
        }
        for _ in range(count)
    ]
