"""From which token of a prompt on an adapter acts. Pure."""

from collections.abc import Sequence

from db.contract.tokens.encoding import last_occurrence
from worker.types import Layout


def start(ids: Sequence[int], layout: Layout) -> int | None:
    """The first token of the prompt `ids` that wears an adapter of this layout; None where it would never act: its
    invocation is nowhere in the prompt. An answer that spells it out again changes nothing."""
    return last_occurrence(tuple(ids), layout.invocation) if layout.invocation else 0
