"""Which workers are asked, and in which order. Pure: knows offers, no connection."""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Offer:
    """A worker that serves, as it last said: its id and address, adapters that it holds, tokens queued, whether it
    parses calls of tools and wears adapters of activation `answer`."""

    worker: str
    url: str
    held: frozenset[str]
    queued: int
    tools: bool
    answer: bool


@dataclass(frozen=True)
class Wants:
    """What a request needs of a worker: to wear an adapter, from an invocation on, or to parse calls of tools. The
    `holder` trains it."""

    wears: str | None = None
    answer: bool = False
    tools: bool = False
    holder: str | None = None


def offer(worker: str, said: Mapping[str, Any]) -> Offer | None:
    """None for what a worker of another release says, and this one cannot read."""
    url, held, queued = said.get("url"), said.get("held", ()), said.get("queued_tokens", 0)
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        return None
    if not isinstance(held, list | tuple) or not isinstance(queued, int):
        return None
    names = frozenset(name for name in held if isinstance(name, str))
    return Offer(worker, url.rstrip("/"), names, queued, said.get("tools") is True, said.get("answer") is True)


def able(offers: Iterable[Offer], wants: Wants) -> list[Offer]:
    return [o for o in offers if (o.tools or not wants.tools) and (o.answer or not wants.answer)]


def ordered(
    offers: Sequence[Offer], wants: Wants, under_way: Mapping[str, int], shunned: Collection[str]
) -> list[Offer]:
    """Who failed of late comes last; then who holds the adapter, who trains it, and who has least to do: tokens queued
    there when it last said so, and those `under_way` from here, by address."""

    def rank(one: Offer) -> tuple[bool, bool, bool, int, float]:
        holds = wants.wears is None or wants.wears in one.held
        trains = wants.holder is None or one.worker == wants.holder
        return one.url in shunned, not holds, not trains, one.queued + under_way.get(one.url, 0), random.random()

    return sorted(offers, key=rank)
