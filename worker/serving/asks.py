"""One request on its way: what the API said of it, and the streams that hand its outputs from the engine's thread to
the loop that answers. Knows threads, no engine."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from worker.serving import errors
from worker.types import Wearable

Reason = Literal["client", "deadline", "drain", "slow_reader", "engine", "refused"]
UNREAD: Final = 1024  # outputs: a reader that is further behind is cut off


@dataclass(eq=False)
class Ask:
    """What the API said of a request: its id, the tenant's salt (the key of its queue and of its share of the prefix
    cache) and weight, the unix time by which it is to be answered, and what adapter it is to wear (none: the base).
    `most` is the number of tokens that it asked for at most, where it did."""

    request: str
    salt: str
    weight: float = 1.0
    deadline: float | None = None
    wears: Wearable | None = None
    most: int | None = None
    arrived: float = field(default_factory=time.monotonic)
    streams: "list[Stream]" = field(default_factory=list)
    cut: Callable[[], object] = lambda: None  # ends the answer, though its reader does not read

    @property
    def error(self) -> BaseException | None:
        """Why one of its streams ended before its end."""
        return next((stream.error for stream in self.streams if stream.error is not None), None)


ASKED: ContextVar[Ask] = ContextVar("ASKED")  # vLLM's classes pass nothing of ours on


class Stream:
    """The outputs of one request to the engine, iterated in the loop that it was made in, at most `UNREAD` of them
    unread. Ends after the last, or raises what `fail` was given."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.loop = asyncio.get_running_loop()
        self.error: BaseException | None = None
        self.ended = False  # nothing comes any more: it was the last, or it failed
        self._unread: deque[Any] = deque()
        self._changed = asyncio.Event()

    def give(self, output: Any, last: bool) -> bool:
        """In the loop: another output. False where too many are unread: it is cut off."""
        if self.ended:
            return True
        if len(self._unread) >= UNREAD:
            self.fail(errors.slow())
            return False
        self._unread.append(output)
        self.ended = last
        self._changed.set()
        return True

    def fail(self, error: BaseException) -> None:
        """In the loop: it ends with `error`, at once; what is unread is dropped. Nothing where it has ended."""
        if not self.ended:
            self.ended, self.error = True, error
            self._unread.clear()
            self._changed.set()

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> Any:
        while not self._unread:
            if self.error is not None:
                raise self.error
            if self.ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._unread.popleft()
