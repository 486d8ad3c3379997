"""A request that became a job's contract, and what its tenant is told of it. Decides nothing."""

from dataclasses import asdict, dataclass
from typing import Any

from db.contract import held_out
from db.contract.choosing import Chosen
from db.contract.pricing import Price
from db.contract.rows.formats import Format
from db.contract.spec import JobSpec


@dataclass(frozen=True)
class Examples:
    """A file of rows; `param` is the request's field that named it."""

    id: str
    param: str
    format: Format
    rows: int
    repeated: int | None = None  # of its rows, as `db.tables.File` counts them


@dataclass(frozen=True)
class Admitted:
    """`invocation` is the text that `spec.adapter.invocation` spells, None for activation `all`; `chosen` says why this
    method, where the request named none."""

    spec: JobSpec
    price: Price
    invocation: str | None
    training: Examples
    chosen: Chosen | None = None

    @property
    def told(self) -> dict[str, Any]:
        """What the job's answers say beside its spec."""
        rows = {"rows": self.training.rows, "repeated_rows": self.training.repeated}
        chosen = {"chosen": asdict(self.chosen)} if self.chosen is not None else {}
        return {"price": asdict(self.price), "invocation": self.invocation, **rows, **chosen}

    @property
    def remarks(self) -> tuple[held_out.Remark, ...]:
        return tuple(held_out.remarks(self.spec, self.training.rows, self.training.repeated))
