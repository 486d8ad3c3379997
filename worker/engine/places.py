"""vLLM's places for adapters, owned: who lies where, who needs it, who goes. Knows no request's tokens and no row.

vLLM would load an adapter that it lacks from a file, and drop the one unused longest: a running request whose adapter
was dropped raises out of every step from then on, and no stream moves again. So nothing is left to it. What is needed
is pinned by count, only what nobody needs makes room, and an adapter's tensors are written over those of the last,
which costs a copy of its own size. vLLM is told an id, which is never used twice, and a name, which is the content:
what it keeps of keys and values by that name stays right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from vllm import SamplingParams
from vllm.lora.lora_model import LoRAModel
from vllm.lora.request import LoRARequest

from worker.engine import activation, lora
from worker.engine.lora import GroupedLora, Pairs
from worker.types import Layout, Wearable

ROOMS = 256  # of which the views are kept


class NotHeld(LookupError):
    """The adapter is in no place, or nobody has taken it."""


@dataclass
class _Place:
    index: int
    request: LoRARequest
    pins: int = 0


class Places:
    """The places of an adapter `manager` of vLLM's; `shared` and `stacks` are what `worker.engine.lora.install` gave.
    `demand` is asked whether this is the engine's thread. `modules` maps every linear that an adapter may act on to
    (inputs, outputs)."""

    def __init__(self, manager: Any, shared: GroupedLora, stacks: Pairs, demand: Callable[[], None]) -> None:
        self._manager, self._shared, self._stacks, self._demand = manager, shared, stacks, demand
        self.modules = {name: (int(a.shape[2]), int(b.shape[1])) for name, (a, b) in stacks.items()}
        self._held: dict[str, _Place] = {}  # by name, the one unused longest first
        self._free = list(reversed(range(manager.lora_slots)))
        self._ids = count(manager.lora_slots + 1)  # vLLM has warmed up with the first
        self._rooms: dict[tuple[int, Layout], list[torch.Tensor]] = {}
        self.evicted = 0
        manager.remove_all_adapters()
        for a, b in stacks.values():
            a.zero_()
            b.zero_()

    @property
    def held(self) -> tuple[str, ...]:
        """Names of what lies in a place, the one unused longest first. For any thread to ask."""
        return tuple(self._held)

    @property
    def pinned(self) -> tuple[str, ...]:
        """Names of what somebody has taken and not given back."""
        return tuple(name for name, place in self._held.items() if place.pins)

    def take(self, wearable: Wearable) -> LoRARequest | None:
        """What a request wears until `give`: pinned once more. None where every place is pinned. Raises ValueError for
        a linear, a shape or a rank that the model or a place has not: nothing has changed then."""
        self._demand()
        place = self._held.pop(wearable.name, None) or self._placed(wearable)
        if place is not None:
            place.pins += 1
            self._held[wearable.name] = place
        return None if place is None else place.request

    def give(self, name: str) -> None:
        """Unpins once; it stays until room is needed. Raises NotHeld."""
        self._demand()
        place = self._held.get(name)
        if place is None or place.pins == 0:
            raise NotHeld(f"nobody has taken {name}")
        place.pins -= 1

    def worn(self, adapter: LoRARequest, sampling: SamplingParams, start: int) -> tuple[LoRARequest, SamplingParams]:
        """Both as vLLM is given them where the adapter acts from token `start` on. Raises NotHeld for what a step would
        look for in vain."""
        place = self._held.get(adapter.lora_name)
        if place is None or place.pins == 0 or place.request.lora_int_id != adapter.lora_int_id:
            raise NotHeld(f"{adapter.lora_name} has no place that is pinned")
        if not start:
            return adapter, sampling
        return activation.named_from(adapter, start), activation.acting_from(sampling, start)

    def _placed(self, wearable: Wearable) -> _Place | None:
        self._check(wearable)
        if self._free:
            index = self._free.pop()
        else:
            oldest = next((name for name, place in self._held.items() if place.pins == 0), None)
            if oldest is None:
                return None
            index = self._left(self._held.pop(oldest))
        self._write(index, wearable)
        return _Place(index, self._told(index, wearable.name))

    def _left(self, place: _Place) -> int:
        self._manager.remove_adapter(place.request.lora_int_id)
        self.evicted += 1
        return place.index

    def _told(self, index: int, name: str) -> LoRARequest:
        """vLLM's own notes say that it has the adapter, without a tensor of its own, and where it lies."""
        number = next(self._ids)
        self._manager._registered_adapters[number] = LoRAModel(number, 1, {})
        self._manager.lora_index_to_id[index] = number
        self._manager._active_adapters[number] = None
        return LoRARequest(name, number, f"onward://{name}")

    def _check(self, wearable: Wearable) -> None:
        layout = wearable.layout
        if wearable.params.shape != (layout.size,):
            raise ValueError(f"{wearable.name}: {wearable.params.size} parameters, its layout has {layout.size}")
        for module in layout.modules:
            a, b = self._stacks.get(module.name, (None, None))
            if a is None or b is None:
                raise ValueError(f"{wearable.name}: the model has no linear {module.name}")
            if (module.inputs, module.outputs) != self.modules[module.name]:
                raise ValueError(f"{wearable.name}: {module.name} has {a.shape[2]} inputs and {b.shape[1]} outputs")
            if layout.rank > a.shape[1]:
                raise ValueError(f"{wearable.name}: its rank is {layout.rank}, a place's {a.shape[1]}")

    def _write(self, index: int, wearable: Wearable) -> None:
        """Over what the last adapter left, of which nothing stays: where its rank was higher, and in linears that this
        one lacks, zeros."""
        layout, params, last = wearable.layout, wearable.params, self._shared.held[index]
        writable = params if params.flags.writeable else params.copy()  # torch warns of arrays it might write to
        room = self._room(index, layout)
        pieces = torch.split(torch.from_numpy(writable), [a * b for a, b in layout.shapes])
        torch._foreach_copy_(room, [piece.view(shape) for piece, shape in zip(pieces, layout.shapes, strict=True)])
        torch._foreach_mul_(room[::2], layout.scaling)  # of A: rows of B are far apart, and each costs a miss
        now = {module.name: layout.rank for module in layout.modules}
        for name, before in last.items():
            kept = now.get(name, 0)
            if kept < before:
                into_a, into_b = (stack[index] for stack in self._stacks[name])
                into_a[kept:before].zero_()
                into_b[:, kept:before].zero_()
        self._shared.held[index] = now

    def _room(self, index: int, layout: Layout) -> list[torch.Tensor]:
        """Where the tensors of an adapter of this layout lie in a place, in its order."""
        key = index, layout
        if key not in self._rooms:
            if len(self._rooms) >= ROOMS:
                self._rooms.clear()
            found = [tuple(stack[index] for stack in self._stacks[module.name]) for module in layout.modules]
            self._rooms[key] = [x for a, b in found for x in (a[: layout.rank], b[:, : layout.rank])]
        return self._rooms[key]


def install(
    runner: Any, pause: Callable[[], None], demand: Callable[[], None], vllms: bool
) -> tuple[GroupedLora, Places]:
    """Take LoRA over from vLLM's model `runner`: its kernels, which `pause` while they score (with `vllms`
    vLLM's own serve), its places, and which tokens wear what lies in them."""
    manager = runner.lora_manager._adapter_manager
    shared, stacks = lora.install(manager, runner.device, pause, vllms)
    activation.install(runner)
    return shared, Places(manager, shared, stacks, demand)
