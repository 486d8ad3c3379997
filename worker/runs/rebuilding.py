"""From a history to the adapter that it leads to, through its parents. Pure; knows no engine, no SQL and no disk."""

from db.contract.history import History
from db.contract.tokens.base_model import Base
from worker.runs import recipes
from worker.runs.replay import Point, replay


def first(history: History, base: Base) -> Point:
    """The adapter and state before step 0: the method's own, or its state with the adapter of the parent. Raises
    ValueError where the parent's layout is not the child's."""
    layout = recipes.layout(history.spec, base)
    params, state = recipes.method(history.spec, layout).init()
    if history.parent is None:
        return Point(params, state)
    if recipes.layout(history.parent.spec, base) != layout:
        raise ValueError("the parent's adapter has another layout")
    return Point(rebuild(history.parent, base).params, state)


def rebuild(history: History, base: Base) -> Point:
    """The point after all steps of `history`, equal to the bit to what training had. Raises ValueError for a row that
    is not what its step asked for."""
    layout = recipes.layout(history.spec, base)
    return replay(recipes.method(history.spec, layout), history.losses, first(history, base))
