"""Whose step is scored next inside a slice: deficit round robin over scored tokens, by tenant. Pure: knows no engine.

Shreedhar and Varghese (1995): every tenant with work is granted tokens in proportion to its weight, spends them on its
runs in turn and keeps what does not suffice for the next. A run's cost is an estimate, what is charged is what it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar


class Ready(Protocol):
    """A run that could be scored now."""

    @property
    def job_id(self) -> str: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def weight(self) -> float:
        """Of its tenant, > 0."""
        ...

    @property
    def cost(self) -> int:
        """Tokens that its next turn is expected to score; 0 where nothing is known of it."""
        ...


R = TypeVar("R", bound=Ready)
ALIKE: Final = 2  # up to so many times as dear is no dearer


@dataclass(frozen=True)
class Shares:
    """What tenants have coming: `deficits` are tokens that may be scored for a tenant before all are granted more, less
    than 0 where it is ahead; `order` are job ids, that whose last turn is longest ago first."""

    deficits: Mapping[str, float] = field(default_factory=dict)
    order: tuple[str, ...] = ()

    def charged(self, tenant_id: str, tokens: int) -> "Shares":
        """After so many tokens were scored for the tenant."""
        return replace(self, deficits={**self.deficits, tenant_id: self.deficits.get(tenant_id, 0.0) - tokens})


def turns(ready: Sequence[R], shares: Shares) -> tuple[list[R], Shares]:
    """The runs whose turn is now, to be scored together, in the order of `ready`: none only where none is ready.

    Whoever can pay for the next of its runs takes that turn, and further runs as far as it can pay. A batch is best
    whole: who is not ahead goes with it on credit of one turn, where that is no dearer. Where nobody can pay, all
    are granted as much, times their weight, as lets every tenant take a turn. So runs whose steps cost about the same
    stay together until what they were charged differs by a step. Tenants that are gone are forgotten, with what they
    had coming.
    """
    if not ready:
        return [], Shares()
    queues = _queues(ready, shares.order)
    deficits = {tenant: shares.deficits.get(tenant, 0.0) for tenant in queues}
    heads = {tenant: queue[0] for tenant, queue in queues.items()}
    chosen = _payable(queues, deficits)
    if chosen:
        credit = _credit([run for run in ready if run.job_id in chosen], heads)
        chosen |= _payable(queues, {tenant: deficits[tenant] + credit[tenant] for tenant in queues})
    else:
        grant = max((head.cost - deficits[tenant]) / head.weight for tenant, head in heads.items())
        for tenant, head in heads.items():  # `max`: what rounding took from the one that `grant` was made for
            deficits[tenant] = max(deficits[tenant] + grant * head.weight, head.cost)
        chosen = _payable(queues, deficits)
    waited = [run.job_id for queue in queues.values() for run in queue if run.job_id not in chosen]
    rank = {job_id: n for n, job_id in enumerate(shares.order)}
    waited.sort(key=lambda job_id: (rank.get(job_id, len(rank)), job_id))
    return [run for run in ready if run.job_id in chosen], Shares(deficits, (*waited, *sorted(chosen)))


def _queues(ready: Sequence[R], order: Sequence[str]) -> dict[str, list[R]]:
    """By tenant its runs, in the order of their turns; new ones last."""
    rank = {job_id: n for n, job_id in enumerate(order)}
    queues: dict[str, list[R]] = {}
    for run in sorted(ready, key=lambda run: (rank.get(run.job_id, len(rank)), run.job_id)):
        queues.setdefault(run.tenant_id, []).append(run)
    return queues


def _credit(chosen: Sequence[Ready], heads: Mapping[str, Ready]) -> dict[str, int]:
    """By tenant, the cost of the next turn where it is no dearer than those chosen, by itself and for its weight."""
    cost = ALIKE * max(run.cost for run in chosen)
    rate = ALIKE * max(run.cost / run.weight for run in chosen)
    alike = {t: head.cost <= cost and head.cost / head.weight <= rate for t, head in heads.items()}
    return {t: head.cost if alike[t] else 0 for t, head in heads.items()}


def _payable(queues: Mapping[str, Sequence[Ready]], deficits: Mapping[str, float]) -> set[str]:
    """The jobs that their tenants can pay for, each tenant's in turn and none past one that must wait for more."""
    chosen: set[str] = set()
    for tenant, queue in queues.items():
        left = deficits[tenant]
        for run in queue:
            if run.cost > left:
                break
            left -= run.cost
            chosen.add(run.job_id)
    return chosen
