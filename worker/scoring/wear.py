"""Puts a wave's probes into slots, and says which tokens wear which. Knows trials and slots; no waves, no forward."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from worker.engine.lora import SlotBank, Worn
from worker.types import Layout, Trial


@dataclass
class _Neighbours:
    """Probes of one layout on as many tokens `each`, one after the other from `start` to `stop`, in slots from `slot`
    on."""

    layout: Layout
    each: int
    start: int
    stop: int
    slot: int
    adapters: int = 1


def wear(bank: SlotBank, segments: Sequence[tuple[Trial, int, int]], pause: Callable[[], None]) -> list[Worn]:
    """Write the probe of every (trial, first token, end) that has one, a `pause` after each; neighbours of one layout
    and length are worn together, so that few products serve many."""
    found: list[_Neighbours] = []
    probes = [(t.layout, t.params, a, b) for t, a, b in segments if t.layout is not None and t.params is not None]
    for slot, (layout, params, start, stop) in enumerate(probes):
        bank.write(slot, layout, params)
        pause()
        last = found[-1] if found else None
        if last is not None and (last.layout, last.each, last.stop) == (layout, stop - start, start):
            last.stop, last.adapters = stop, last.adapters + 1
        else:
            found.append(_Neighbours(layout, stop - start, start, stop, slot))
    return [
        Worn(n.start, n.stop, n.adapters, bank.pairs(n.slot, n.adapters, n.layout), n.layout.scaling) for n in found
    ]
