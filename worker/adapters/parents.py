"""The adapter that a run begins with, checked where it is another job's. Knows no disk, no SQL and no engine."""

from db.contract.history import History
from db.contract.tokens.base_model import Base
from worker.adapters import peft_files
from worker.runs import rebuilding, recipes
from worker.runs.replay import Point


class ParentChanged(ValueError):
    """What the parent's journal leads to is not the adapter that the job was to go on from."""


def first(history: History, base: Base) -> Point:
    """The point before step 0. Raises ParentChanged where the parent's adapter has another hash than the spec says."""
    point, parent = rebuilding.first(history, base), history.spec.parent
    if parent is not None:
        found = peft_files.sha256(peft_files.weights(recipes.layout(history.spec, base), point.params))
        if found != parent.sha256:
            what = f"the adapter of {parent.job} after {parent.step} steps"
            raise ParentChanged(f"{what} has the hash {found}, not {parent.sha256} as when the job was made")
    return point
