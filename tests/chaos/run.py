"""From a seed to a verdict: a fleet is started, a storm runs over it, what is left is judged. Knows the order."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.cases import CASES, Ground, Held, played
from tests.chaos.fleet import Fleet, Post, fleet
from tests.chaos.plan import plan
from tests.chaos.storm import Storm
from tests.chaos.watch import Verdict, judged

WORKERS = {"engine": 1, "plain": 3}
TWINS = 1  # of each model's jobs, how many run again alone


def stormed(
    seed: int, *, tenants: int, jobs: int, faults: int, steps: int = 100, cap: float = 3600.0, logs: Path | None = None
) -> Verdict:
    """The storm of `seed` on a fleet of its own, and what became of it."""
    planned = plan(seed, tenants=tenants, jobs=jobs, faults=faults, models=WORKERS, steps=steps)
    with fleet(list(WORKERS), logs) as made:
        posted(made)
        storm = Storm(made, planned, cap)
        storm.run()
        return judged(made, storm, repeated(storm))


def fixed(numbers: Sequence[int], said: Callable[[Held], None], logs: Path | None = None) -> list[Held]:
    """The cases of these numbers, one after the other on one fleet; each is told to `said` when it is over."""
    wanted = [case for case in CASES if case.number in numbers]
    out = []
    with fleet([case.model for case in wanted], logs) as made:
        ground = Ground(made)
        for case in wanted:
            out.append(played(case, ground))
            said(out[-1])
    return out


def posted(made: Fleet) -> None:
    """A worker at every post; the engine's start is not waited for, jobs may."""
    made.posts += [Post("engine", "vllm", {"ONWARD_SELF_CHECK": "false"}) for _ in range(WORKERS["engine"])]
    made.posts += [Post("plain") for _ in range(WORKERS["plain"])]
    made.tend()


def repeated(storm: Storm) -> dict[str, str]:
    """Jobs that succeeded in the storm, and the ids of the same jobs run again with nobody beside them."""
    out = {}
    for model in WORKERS:
        whole = [
            e for e in storm.traffic.entries
            if e.submission.model == model and e.ids and storm.fleet.job(e.ids[0]).state == "succeeded"
        ]  # fmt: skip
        for entry in [e for e in whole if storm.still_has_its_files(e)][:TWINS]:
            out[entry.ids[0]] = storm.alone(entry)
    return out
