"""From a history to the adapters that it leads to, through restarts and parents. Pure; knows no engine and no SQL."""

from collections.abc import Collection

from db.contract.history import History, Restart
from db.contract.tokens.base_model import Base
from worker.runs import recipes
from worker.runs.replay import Point, replay
from worker.zo.method import gone_back


def first(history: History, base: Base) -> Point:
    """The adapter and state before step 0: the method's own, or its state with the adapter of the parent. Raises
    ValueError where the parent's layout is not the child's."""
    layout = recipes.layout(history.spec, base)
    params, state = recipes.method(history.spec, layout, profile=history.profile).init()
    if history.parent is None:
        return Point(params, state)
    if recipes.layout(history.parent.spec, base) != layout:
        raise ValueError("the parent's adapter has another layout")
    return Point(rebuild(history.parent, base).params, state)


def rebuild(history: History, base: Base, start: Point | None = None) -> Point:
    """The point after all steps of `history`, from `start` on it where given, equal to the bit to what training had.
    Raises ValueError for a row that is not what its step asked for, and for a start behind which a restart goes back.
    """
    return points(history, base, (history.step,), start)[history.step]


def points(history: History, base: Base, wanted: Collection[int], start: Point | None = None) -> dict[int, Point]:
    """The same after each number of steps in `wanted`, none of them before `start`, in one replay."""
    point = first(history, base) if start is None else start
    ahead = [r for r in history.restarts if r.at > point.state.step]
    if any(r.origin < point.state.step for r in ahead):
        raise ValueError(f"a restart goes back behind step {point.state.step}")
    layout = recipes.layout(history.spec, base)
    back = {r.at: r.origin for r in ahead}
    kept: dict[int, Point] = {}
    for step in sorted({*wanted, *back, *back.values()}):
        method = recipes.method(history.spec, layout, len(history.restarts) - len(ahead), history.profile)
        point = replay(method, history.losses[:step], point)
        if step in back:
            point = went_back(kept[back[step]], step)
            ahead = [r for r in ahead if r.at > step]
        kept[step] = point
    return kept


def went_back(origin: Point, step: int) -> Point:
    """What a run that went back to `origin` has once `step` steps are taken."""
    return Point(origin.params, gone_back(origin.state, step))


def usable(restarts: Collection[Restart], step: int) -> bool:
    """Whether replay can start at the point after `step` steps: no later restart goes back behind it."""
    return all(r.at <= step or r.origin >= step for r in restarts)
