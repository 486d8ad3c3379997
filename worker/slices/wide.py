"""Which wide steps are under way, and who waits for them. Pure: knows runs and candidates, no engine and no SQL.

A wide step goes on over slices, and what it needs in memory stays: so only as many are under way in a worker as runs
step together. Other runs of wide steps wait until one of them is complete, and keep nobody from a slice meanwhile.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from db.worker.candidates import Waiting
from worker.slices.resident import Resident

WAVES: Final = 4  # of a step: one of more is wide


def is_wide(tokens: int, max_tokens: int) -> bool:
    """Whether a step of so many tokens is scored by itself, a wave at a turn; shorter ones share their waves."""
    return tokens > WAVES * max_tokens


def under_way(residents: Iterable[Resident]) -> int:
    """How many of them are in the middle of a wide step."""
    return sum(resident.under_way is not None for resident in residents)


def of(residents: Iterable[Resident], max_tokens: int) -> int:
    """How many of them have wide steps: so many tenants more are to be asked for, lest they hide those that could
    step now."""
    return sum(is_wide(resident.tokens, max_tokens) or resident.under_way is not None for resident in residents)


def fit(waiting: Sequence[Waiting], residents: Mapping[str, Resident], limit: int, max_tokens: int) -> list[Waiting]:
    """Those of `waiting` that could step now, where `limit` wide steps may be under way: all, or all but runs that
    would begin one. A step under way of a job that waits no more, here at least, makes room where it is needed.

    A tenant's use is counted with what its steps under way have scored, which stands in no row before they are
    complete: a tenant of wide steps would else come first in every slice until then.
    """
    there = {w.job_id for w in waiting}
    for job_id, resident in residents.items():
        if job_id not in there and under_way(residents.values()) >= limit:
            resident.under_way = None
    if under_way(residents.values()) >= limit:
        begin = {
            job_id
            for job_id, resident in residents.items()
            if resident.under_way is None and is_wide(resident.tokens, max_tokens)
        }
        waiting = [w for w in waiting if w.job_id not in begin]
    ahead = Counter[str]()
    for resident in residents.values():
        if resident.under_way is not None:
            ahead[resident.run.scope] += resident.under_way.tokens
    return [replace(w, virtual=w.virtual + ahead[w.tenant_id] / w.weight) for w in waiting]
