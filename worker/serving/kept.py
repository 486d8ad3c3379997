"""What is kept in memory by name as long as there is room: the one unused longest goes first. Knows no thing."""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """At most `budget` bytes of them, as whoever puts them counts. For one thread at a time."""

    def __init__(self, budget: int) -> None:
        self.budget, self.bytes, self.evicted = budget, 0, 0
        self._things: OrderedDict[str, tuple[T, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._things)

    def get(self, name: str) -> T | None:
        found = self._things.get(name)
        if found is None:
            return None
        self._things.move_to_end(name)
        return found[0]

    def put(self, name: str, thing: T, size: int) -> None:
        """In place of what had the name. What is larger than the budget is not kept."""
        self.drop(name)
        if size > self.budget:
            return
        self._things[name] = thing, size
        self.bytes += size
        while self.bytes > self.budget:
            self.drop(next(iter(self._things)))
            self.evicted += 1

    def drop(self, name: str) -> None:
        """What is not there is no error."""
        _, size = self._things.pop(name, (None, 0))
        self.bytes -= size

    def names(self) -> tuple[str, ...]:
        return tuple(self._things)
