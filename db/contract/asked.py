"""What a request fixed, and what is known before its rows are tokenised. Decides nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from db.contract.admitted import Examples
from db.contract.profiles import Profiled
from db.contract.refusal import Refusal
from db.contract.tokens.base_model import Base


@dataclass(frozen=True)
class Asked:
    """What a tenant fixed, flat as `presets.resolve` takes it; `places` has the path of a field that was not given
    directly under `onward`. `activation` and `text`, of the invocation, wait for what the rows say."""

    values: Mapping[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)
    activation: str = "all"
    text: str | None = None

    def path(self, name: str) -> str:
        """Where the request has, or would have, this field; a rate that is a preset's times a multiplier, there."""
        if name not in self.values and f"{name}_multiplier" in self.values:
            name = f"{name}_multiplier"
        return self.places.get(name, f"onward.{name}")

    def refusal(self, name: str, reason: str, code: str = "invalid_value") -> Refusal:
        """That the value of field `name` cannot be."""
        return Refusal(self.path(name), f"Invalid value for '{self.path(name)}': {reason}", code)


@dataclass(frozen=True)
class Limits:
    """The most that this server takes; `step_tokens` are scored tokens of one step, and of one evaluation."""

    steps: int
    batch_size: int
    rank: int
    step_tokens: int


@dataclass(frozen=True)
class Facts:
    """What is known before a row is tokenised. `seed` is drawn for a request that names none; `derivatives` says that a
    worker with the torch scorer is registered for the base, `dtypes` in what its workers without it compute; `profile`
    is the one that the request names, None where there is no such."""

    base: Base
    training: Examples
    validation: Examples | None
    limits: Limits
    seed: int
    derivatives: bool = False
    dtypes: frozenset[str] = frozenset()
    profile: Profiled | None = None

    @property
    def files(self) -> tuple[Examples, ...]:
        """The training file first."""
        return (self.training,) if self.validation is None else (self.training, self.validation)

    @property
    def valid_rows(self) -> int:
        return 0 if self.validation is None else self.validation.rows
