"""Rows of a training file that are measured on and not trained on: how many, and what is said of them. Reads no row."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from db.contract.refusal import Unfit
from db.contract.spec import JobSpec

# By default every tenth row, at most so many; of fewer than LEAST rows none: four rows or less tell no rise from noise
# (docs/divergence.md), and would be missing where every row counts.
PART, MOST, LEAST = 10, 200, 50


@dataclass(frozen=True)
class Remark:
    """What a tenant is told of a job when it is made: an event of its own."""

    level: Literal["info", "warn"]
    message: str


def count(asked: Mapping[str, Any], rows: int, valid_rows: int) -> int:
    """Of the `rows` of a training file. Where nothing was asked, none beside a validation file, of `valid_rows` rows,
    and none where no row is to be evaluated."""
    if (wanted := asked.get("held_out")) not in (None, "auto"):
        return int(wanted)
    if valid_rows or rows < LEAST or asked.get("eval_rows") == 0:
        return 0
    return min(rows // PART, MOST)


def unfit(asked: Mapping[str, Any], rows: int, valid_rows: int) -> Iterator[Unfit]:
    """What was asked for and does not go with the files."""
    held = count(asked, rows, valid_rows)
    if held < 0:
        yield Unfit("held_out", "it counts rows: 0 or more.")
    elif held and valid_rows:
        yield Unfit("held_out", "there is a validation file already: send one of the two.")
    elif held >= rows:
        yield Unfit("held_out", f"{held} of {rows} rows: at least one must be left to train on.")
    if asked.get("eval_rows") and not held and not valid_rows:
        yield Unfit("eval_rows", "it needs a validation file, or rows held out of the training file.")


def remarks(spec: JobSpec, rows: int, repeated: int | None) -> Iterator[Remark]:
    """On a job whose training file has `rows` rows; `repeated` of them say what an earlier one says (None: unknown)."""
    if spec.held_out:
        yield Remark(
            "info",
            f"{spec.held_out} of {rows} rows are held out by the seed, measured on and not trained on "
            "(onward.held_out: 0 trains on all)",
        )
    if repeated:
        also = " and may be held out too" if spec.held_out else ""
        yield Remark(
            "warn", f"{repeated} of {rows} rows repeat an earlier row: each is trained on and charged as a row{also}"
        )
