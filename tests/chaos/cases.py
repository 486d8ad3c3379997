"""Stub."""

from dataclasses import dataclass, field


@dataclass
class Claim:
    what: str
    held: bool
    measured: str


@dataclass
class Held:
    number: int
    name: str
    claims: list[Claim] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        return all(c.held for c in self.claims)
