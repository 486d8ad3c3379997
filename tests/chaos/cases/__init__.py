"""The fixed cases: what an adversary found, each as small as it comes. The table is all that others need."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.chaos.cases import admitted, databases, doors, shares, stores, workers
from tests.chaos.cases.ground import Claim, Ground, Held, NotPlayed

__all__ = ("CASES", "Case", "Claim", "Ground", "Held", "played")


@dataclass(frozen=True)
class Case:
    """`play` yields claims as it goes."""

    number: int
    name: str
    play: Callable[[Ground], Iterator[Claim]]

    @property
    def model(self) -> str:
        return f"case-{self.number}"


CASES = tuple(
    Case(number, name, play)
    for number, name, play in (
        (1, "numbers beyond the engine", admitted.numbers_beyond_the_engine),
        (2, "a run that kills its worker", workers.run_that_kills),
        (3, "a row of a newer release", workers.row_from_a_newer_release),
        (4, "a step of millions of tokens", admitted.tokens_of_a_step),
        (5, "45 counts of one large file", doors.counting),
        (6, "a worker whose disk is full", workers.disk_that_is_full),
        (7, "64 choices on long prompts", admitted.memory_of_a_count),
        (8, "half-sent requests and a flood", doors.half_sent),
        (9, "weights inside a cohort", shares.inside_a_cohort),
        (10, "repetition, deletion, charsets, bells, secrets", doors.repetitions),
        (11, "cancels, event ids, deaths, the canary", workers.promises_kept),
        (12, "twenty equal tenants", shares.equal_tenants),
        (13, "weights across slices", shares.by_weight),
        (14, "a thousand jobs queued before", shares.behind_a_thousand),
        (15, "a lost adapter store", stores.lost_store),
        (16, "a worker cut off from the database", databases.partition),
        (17, "a database that fails over", databases.fail_over),
        (18, "a database whose disk is full", databases.full_database),
    )
)


def played(case: Case, ground: Ground) -> Held:
    """The case on this ground. What it raises is a claim that does not hold: it should have been able to end."""
    ground.model = case.model
    held, begun = Held(case.number, case.name), time.monotonic()
    try:
        for claim in case.play(ground):
            held.claims.append(claim)
    except NotPlayed as why:
        held.not_played = str(why)
    except Exception as error:
        held.claims.append(Claim("the case could be played", False, f"{type(error).__name__}: {error}"[:300]))
    held.seconds = round(time.monotonic() - begun, 1)
    return held
