"""What a run may be trained for, as values: one record an objective. How its loss is computed is the worker's.

Knows the formats of training rows, no loss and no engine.
"""

from dataclasses import dataclass
from typing import Final, Literal

from db.contract.rows.formats import Format


@dataclass(frozen=True)
class Objective:
    """`formats` are the training rows it can use; `needs` is what the engine must give of a scored text: the
    log-probabilities of given tokens, or completions of its own. Without `has_accuracy` nothing counts as a hit;
    `greedy` says that hits need the likeliest token at every target, which only evaluations ask for."""

    name: str
    formats: tuple[Format, ...]
    needs: Literal["logprobs", "completions"]
    has_accuracy: bool
    greedy: bool = False


# Of those that can train a format, `auto` takes the first.
OBJECTIVES: Final = {
    record.name: record
    for record in (
        Objective("lm", ("chat", "completion"), needs="logprobs", has_accuracy=True, greedy=True),
        Objective("choice", ("choice",), needs="logprobs", has_accuracy=True),
    )
}


def training(format: Format) -> tuple[Objective, ...]:
    """The objectives that rows of this format can be used for; every format has one."""
    return tuple(record for record in OBJECTIVES.values() if format in record.formats)
