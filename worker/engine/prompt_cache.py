"""Prompts computed before, kept under a budget of bytes. Knows sizes and whose they are; no engine and no tensor.

What a scope (a tenant) can learn: a prompt is found only where the same scope has put it before, and what is evicted
depends on how much each scope keeps, never on whether two scopes keep the same. Both keep, and are charged for, a claim
of their own, as though nobody shared; the value itself is stored once, so equal texts only save memory. So neither the
time a step takes nor what it returns tells one tenant that another has a text (docs/decisions/0005).
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

V = TypeVar("V")
PATIENCE: Final = (
    4  # a scope's claim is stale when the scope has since used this many times as many prompts as it keeps
)


@dataclass
class _Stored(Generic[V]):
    value: V
    claims: int = 0


@dataclass
class _Scope:
    claims: OrderedDict[bytes, tuple[int, int]]  # prompt -> (bytes, when it was last used), longest unused first
    held: int = 0  # bytes
    uses: int = 0


class PromptCache(Generic[V]):
    """Values by (scope, prompt), at most `budget` bytes of claims in all.

    Where there is no room, the scope that keeps most makes it, by what it has not used for longest. The scope that asks
    gives up its own stale claims only: a dataset larger than the budget is walked in ever new orders, and throwing out
    what will be asked for next to keep what was asked for last would leave nothing to be found (least recently used
    finds 12 % where half fits; keeping what is there finds half).
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.held = budget, 0
        self.found = self.missed = self.evicted = 0
        self._scopes: dict[str, _Scope] = {}
        self._stored: dict[bytes, _Stored[V]] = {}

    def get(self, scope: str, prompt: bytes) -> V | None:
        """The value that this scope has put, or None: then it is to be computed and put."""
        own = self._scopes.get(scope)
        if own is None or prompt not in own.claims:
            self.missed += 1
            return None
        own.uses += 1
        own.claims[prompt] = (own.claims[prompt][0], own.uses)
        own.claims.move_to_end(prompt)
        self.found += 1
        return self._stored[prompt].value

    def put(self, scope: str, prompt: bytes, value: V, size: int) -> V:
        """Keep a value of `size` bytes where there is room; returns the one to use, which is the one already stored
        where any scope has one."""
        own = self._scopes.setdefault(scope, _Scope(OrderedDict()))
        own.uses += 1
        if prompt not in own.claims and self._room(own, size):
            own.claims[prompt] = (size, own.uses)
            own.held += size
            self.held += size
            self._stored.setdefault(prompt, _Stored(value)).claims += 1
        return self._stored[prompt].value if prompt in own.claims else value

    @property
    def stored(self) -> int:
        """Prompts stored, equal ones once."""
        return len(self._stored)

    def _room(self, own: _Scope, size: int) -> bool:
        if size > self.budget:
            return False
        while self.held + size > self.budget:
            victim = max(self._scopes.values(), key=lambda s: s.held + (size if s is own else 0))
            if victim is own and not self._stale(own):
                return False
            self._evict(victim)
        return True

    @staticmethod
    def _stale(scope: _Scope) -> bool:
        """Whether the claim unused for longest has not been used while the scope went through many times as many."""
        if not scope.claims:
            return False
        _, last = next(iter(scope.claims.values()))
        return scope.uses - last > PATIENCE * len(scope.claims)

    def _evict(self, scope: _Scope) -> None:
        prompt, (size, _) = scope.claims.popitem(last=False)
        scope.held -= size
        self.held -= size
        self.evicted += 1
        stored = self._stored[prompt]
        stored.claims -= 1
        if not stored.claims:
            del self._stored[prompt]
