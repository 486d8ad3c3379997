"""Who is served next: queues by tenant, fair in tokens. Pure: knows no engine, no thread and no clock.

Each tenant has an account of the tokens it was served, divided by its weight; the tenant with the lowest goes first,
and one that comes back after a pause starts level with the others: nobody saves up. A request is charged what it is
expected to take when it starts, more as it takes more, and what it did not take is given back when it ends.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")
PATIENCE: Final = 2048  # tokens by which others may run ahead of a request that waits for a place


@dataclass(eq=False)
class Waiting(Generic[T]):
    """A request that waits. `cost` is in tokens, > 0; `weight` its tenant's, > 0; `wears` names an adapter, or none.
    `passed` counts the tokens of others that took a place when it was its turn and it found none, `charged` what its
    tenant was charged for it."""

    tenant: str
    weight: float
    cost: int
    wears: str | None
    what: T
    passed: int = 0
    charged: int = 0


class Queues(Generic[T]):
    """Requests in order of arrival by tenant, at most `limit` tokens of them in all: a single one always fits."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.tokens = 0  # waiting
        self._waiting: dict[str, list[Waiting[T]]] = {}
        self._served: dict[str, float] = {}  # tokens over weight, of tenants that wait or run
        self._running: dict[str, int] = {}  # requests
        self._stuck: dict[str, Waiting[T]] = {}  # of each tenant, the first that found no place in its turn
        self._level = 0.0  # where one starts that was away

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def put(self, new: Waiting[T]) -> list[Waiting[T]]:
        """Add `new`; returns those for whom there is no room, `new` perhaps among them: the latest of the tenant that
        has most waiting for its weight."""
        if new.tenant not in self._waiting:
            self._served[new.tenant] = max(self._served.get(new.tenant, 0.0), self._level)
        self._waiting.setdefault(new.tenant, []).append(new)
        self.tokens += new.cost
        out: list[Waiting[T]] = []
        while self.tokens > self.limit and len(self) > 1:
            longest = max(self._waiting.values(), key=lambda q: (sum(w.cost for w in q) / q[-1].weight, q[-1] is new))
            out.append(longest[-1])
            self._take_out(longest[-1])
        return out

    def take(self, accept: Callable[[Waiting[T]], bool]) -> Waiting[T] | None:
        """The next to be served, charged to its tenant; None where nobody is accepted. `accept` is asked in order, and
        refuses a request that finds no place for its adapter: others go past it. Those that would take a place do so
        for PATIENCE tokens at most; then none does before it."""
        starved = [one for one in self._stuck.values() if one.passed >= PATIENCE]
        for one in starved:
            if accept(one):
                return self._started(one)
        for tenant in sorted(self._waiting, key=lambda t: (self._served[t], t)):
            for one in self._waiting[tenant]:
                if one.wears is not None and starved:
                    continue
                if accept(one):
                    return self._started(one)
                self._stuck.setdefault(tenant, one)
        return None

    def remove(self, one: Waiting[T]) -> bool:
        """Take it out unserved; False where it does not wait (any more)."""
        if one not in self._waiting.get(one.tenant, ()):
            return False
        self._take_out(one)
        return True

    def took(self, one: Waiting[T], tokens: int) -> None:
        """A request that was taken has taken so many tokens in all, so far."""
        if tokens > one.charged:
            self._charge(one, tokens)

    def ended(self, one: Waiting[T], tokens: int) -> None:
        """A request that was taken took so many tokens in the end."""
        self._charge(one, tokens)
        self._running[one.tenant] -= 1
        self._forget(one.tenant)

    def everyone(self) -> Iterable[Waiting[T]]:
        return [one for queue in self._waiting.values() for one in queue]

    def _started(self, one: Waiting[T]) -> Waiting[T]:
        self._level = max(self._level, self._served[one.tenant])
        self._running[one.tenant] = self._running.get(one.tenant, 0) + 1
        self._take_out(one)
        self._charge(one, one.cost)
        for stuck in self._stuck.values() if one.wears is not None else ():
            if self._served[one.tenant] >= self._served[stuck.tenant]:  # else it was not the stuck one's turn
                stuck.passed += one.cost
        return one

    def _charge(self, one: Waiting[T], tokens: int) -> None:
        self._served[one.tenant] += (tokens - one.charged) / one.weight
        one.charged = tokens

    def _take_out(self, one: Waiting[T]) -> None:
        if self._stuck.get(one.tenant) is one:
            del self._stuck[one.tenant]
        queue = self._waiting[one.tenant]
        queue.remove(one)
        self.tokens -= one.cost
        if not queue:
            del self._waiting[one.tenant]
            self._forget(one.tenant)

    def _forget(self, tenant: str) -> None:
        """Whoever neither waits nor runs has no account, unless it is ahead of the others: then it keeps it."""
        if tenant not in self._waiting and not self._running.get(tenant):
            self._running.pop(tenant, None)
            if self._served[tenant] <= self._level:
                del self._served[tenant]
