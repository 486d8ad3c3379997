"""What the tests serve beside scoring: requests in the scheduler of the real engine. Knows one engine."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from vllm import SamplingParams
from vllm.lora.request import LoRARequest

from tests.waiting import HANG
from worker.engine.engine import Engine


def greedy(count: int) -> SamplingParams:
    return SamplingParams(max_tokens=count, temperature=0, ignore_eos=True)


class Streams:
    """A `Served`: the tokens of every request that came, by its name, and an event when it has all."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.tokens: dict[str, list[int]] = {}
        self.steps = 0
        self.error: BaseException | None = None
        self._done: dict[str, threading.Event] = {}

    @property
    def runnable(self) -> bool:
        return self.engine.runnable

    def step(self) -> None:
        self.steps += 1
        for output in self.engine.step():
            self.tokens[output.request_id] = list(output.outputs[0].token_ids)
            if output.finished:
                self._done[output.request_id].set()

    def failed(self, error: BaseException) -> None:
        self.error = error
        for done in self._done.values():
            done.set()

    def ask(self, name: str, prompt: list[int], count: int, adapter: LoRARequest | None = None) -> None:
        """From any thread; returns at once."""
        self._done[name] = threading.Event()
        self.engine.owner.post(lambda: self.engine.add_request(name, prompt, greedy(count), adapter))

    def wait(self, name: str) -> list[int]:
        assert self._done[name].wait(HANG)
        return self.tokens[name]


class OneStep(Streams):
    """One step at every point where training may pause; as a request has all its tokens, `more` is called for the
    next."""

    def __init__(self, engine: Engine, more: Callable[["OneStep"], None]) -> None:
        super().__init__(engine)
        self._more, self._rests = more, False

    @property
    def runnable(self) -> bool:
        if self._rests:
            self._rests = False
            return False
        return self.engine.runnable

    def step(self) -> None:
        super().step()
        self._rests = True
        if not self.engine.runnable:
            self._more(self)


@contextmanager
def served(streams: Streams) -> Iterator[Any]:
    """Within this it is served, and nothing is afterwards: what is left is brought to its end unheard."""
    engine, owner = streams.engine, streams.engine.owner

    def end() -> None:
        owner._served = None
        while engine.runnable:
            engine.step()

    owner.serve(streams)
    try:
        yield streams
    finally:
        owner.run(end)
