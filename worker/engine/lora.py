"""LoRA on the engine's forward pass: the slots probes are written to and grouped GEMMs. Knows no trials, no attention.

Two sets of adapters never meet. What the engine serves lies in vLLM's own stacked tensors, in the places that
`worker.engine.places` owns. What is scored lives in a `SlotBank`, which vLLM neither sees nor evicts; a slot number
means nothing outside one forward.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

from worker.types import Layout, Params

SHORT = 64  # tokens: adapters that act on fewer each are multiplied together, for then calls cost more than products
Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]  # module name -> (A [adapters, r, in], B [adapters, out, r])


@dataclass(frozen=True)
class Worn:
    """Adapters of one layout acting on tokens `start` to `stop` of a forward, each on as many, one after the other."""

    start: int
    stop: int
    adapters: int
    pairs: Pairs
    scaling: float

    def of(self, start: int, stop: int) -> Iterator["Worn"]:
        """What of it acts on tokens `start` to `stop`, numbered from `start`: whole adapters together, and those that
        are cut apart from them."""
        low, high = max(start, self.start), min(stop, self.stop)
        if low >= high:
            return
        each = (self.stop - self.start) // self.adapters
        while low < high:
            first, inside = divmod(low - self.start, each)
            count = 1 if inside or high - low < each else (high - low) // each
            end = min(high, self.start + (first + count) * each)
            pairs = {name: (a[first : first + count], b[first : first + count]) for name, (a, b) in self.pairs.items()}
            yield Worn(low - start, end - start, count, pairs, self.scaling)
            low = end


class SlotBank:
    """Adapters being scored, one per row of a [slots, width] matrix in the model's dtype, on its device. A row is the
    probe's own flat vector, so writing a slot is one copy whatever the rank and modules; modules that a layout lacks
    are not visited, so nothing is padded or zeroed and nothing of an earlier occupant can be read. The matrix takes at
    most `limit` bytes: where adapters are wide there are fewer slots, down to one.
    """

    def __init__(self, slots: int, dtype: torch.dtype, device: torch.device, limit: int = 1 << 30) -> None:
        self.slots, self._limit = slots, limit
        self._memory = torch.empty(0, dtype=dtype, device=device)
        self._rows = self._memory.view(slots, 0)
        self._views: dict[tuple[int, int, Layout], Pairs] = {}

    def fit(self, width: int) -> int:
        """Make room for adapters of up to `width` parameters, forgetting what slots hold; how many slots there are."""
        slots = self.room(width)
        if width > self._rows.shape[1] or slots > len(self._rows):
            if slots * width > len(self._memory):  # shapes that take turns, wave by wave, take turns in the same memory
                self._memory = self._memory.new_empty(slots * width)
            self._rows = self._memory[: slots * width].view(slots, width)
            self._views.clear()
        return len(self._rows)

    def room(self, width: int) -> int:
        """How many slots there are for adapters of `width` parameters."""
        return min(self.slots, max(1, self._limit // (max(1, width) * self._rows.element_size())))

    def write(self, slot: int, layout: Layout, params: Params) -> None:
        """Overwrite a slot with `params` [layout.size], for which `fit` has made room."""
        writable = params if params.flags.writeable else params.copy()  # torch warns of arrays it might write to
        self._rows[slot, : layout.size].copy_(torch.from_numpy(writable))

    def pairs(self, slot: int, adapters: int, layout: Layout) -> Pairs:
        """The tensors of `adapters` slots from `slot` on that hold adapters of this layout: views into the slots."""
        key = (slot, adapters, layout)
        if key not in self._views:
            if len(self._views) >= 64 * self.slots:
                self._views.clear()
            self._views[key] = dict(self._tensors(slot, adapters, layout))
        return self._views[key]

    def _tensors(
        self, slot: int, adapters: int, layout: Layout
    ) -> Iterator[tuple[str, tuple[torch.Tensor, torch.Tensor]]]:
        rows = self._rows[slot : slot + adapters]
        tensors = [
            rows[:, start:stop].view(adapters, *shape)
            for start, stop, shape in zip(layout.offsets, layout.offsets[1:], layout.shapes, strict=False)
        ]
        for i, module in enumerate(layout.modules):
            yield module.name, (tensors[2 * i], tensors[2 * i + 1])


class GroupedLora(PunicaWrapperCPU):  # type: ignore[misc]  # vllm is untyped here
    """What tokens vLLM's scheduler has put into a step, grouped by adapter: one GEMM a run of equal tokens.

    vLLM's CPU kernels copy a whole A and B for every token, and for tokens without adapter (index -1) index from the
    end, which gives them the last place's adapter. Here such tokens belong to no run and are left alone. `held` says
    what lies in each place: the rank by the name of each linear.
    """

    def __init__(self, max_num_batched_tokens: int, max_batches: int, places: int, device: torch.device) -> None:
        # A request whose adapter begins within its prompt is two runs.
        super().__init__(max_num_batched_tokens, 2 * max_batches, device)
        self.runs: list[tuple[int, int, int]] = []  # (start, stop, place), adapters only
        self.held: list[dict[str, int]] = [{} for _ in range(places)]
        self.worn: Sequence[Worn] | None = None  # None: the engine serves; otherwise it scores
        self.vllms: Any = None  # the wrapper that serves in place of this one
        self._at = 0  # the forward's first row that what is computed now has
        self._parts: dict[tuple[int, int], list[Worn]] = {}

    @contextmanager
    def scoring(self, worn: Sequence[Worn]) -> Iterator[None]:
        """Within this, forwards see exactly the adapters of `worn`, and none that the engine serves."""
        self.worn = worn
        try:
            yield
        finally:
            self.worn, self._at = None, 0
            self._parts.clear()

    @contextmanager
    def rows_from(self, start: int) -> Iterator[None]:
        """Within this, what is computed are rows from `start` on of what was computed outside of it."""
        self._at += start
        try:
            yield
        finally:
            self._at -= start

    def worn_by(self, rows: int) -> list[Worn]:
        """What the next `rows` rows wear, numbered from the first of them."""
        assert self.worn is not None
        key = self._at, rows
        if key not in self._parts:
            self._parts[key] = [part for worn in self.worn for part in worn.of(self._at, self._at + rows)]
        return self._parts[key]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within this the engine serves. What it tells of its requests' adapters is told at every step anew, and
        scoring reads none of it."""
        worn, self.worn = self.worn, None
        try:
            yield
        finally:
            self.worn = worn

    def update_metadata(
        self, mapping: Any, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int, **kwargs: Any
    ) -> None:
        super().update_metadata(mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)
        indices, counts = torch.unique_consecutive(self.token_lora_indices, return_counts=True)
        stops = torch.cumsum(counts, 0)
        self.runs = [
            (stop - count, stop, index)
            for index, count, stop in zip(indices.tolist(), counts.tolist(), stops.tolist(), strict=True)
            if index >= 0
        ]


class ModuleLora:
    """What one linear layer calls. `names` are the transformers names of its output slices, in order (q, k, v are one
    layer in vLLM). A forward that scores calls `pause` after it."""

    def __init__(self, names: tuple[str, ...], shared: GroupedLora, pause: Callable[[], None]) -> None:
        self._names, self._shared, self._pause = names, shared, pause

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **others: Any,
    ) -> None:
        """y [tokens, sum of slices] += scaling * x A^T B^T for the tokens of each adapter, in place. What is served has
        its scaling in A already; stacks are [places, 1, rank, inputs] and [places, 1, slice, rank] of each slice."""
        if self._shared.worn is None:
            if self._shared.vllms is not None:
                self._shared.vllms.add_lora_linear(y, x, lora_a_stacked, lora_b_stacked, scale, output_slices, **others)
                return
            for start, stop, place in self._shared.runs:
                self._serve(y[start:stop], x[start:stop], place, lora_a_stacked, lora_b_stacked)
            return
        for worn in self._shared.worn_by(len(x)):
            offset = 0
            for name, width in zip(self._names, output_slices, strict=True):
                if name in worn.pairs:
                    _add(y[worn.start : worn.stop, offset : offset + width], x[worn.start : worn.stop], name, worn)
                offset += width
        self._pause()

    def _serve(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        place: int,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
    ) -> None:
        offset, held = 0, self._shared.held[place]
        for name, a, b in zip(self._names, lora_a_stacked, lora_b_stacked, strict=True):
            width, rank = b.shape[2], held.get(name)
            if rank is not None:
                y[:, offset : offset + width].addmm_(x @ a[place, 0, :rank].T, b[place, 0, :, :rank].T)
            offset += width


def install(manager: Any, device: torch.device, pause: Callable[[], None], vllms: bool) -> tuple[GroupedLora, Pairs]:
    """Replace vLLM's LoRA kernels by the grouped ones in the layers of an adapter `manager` of vLLM's. Returns what all
    layers share, and of every linear that an adapter may act on, by its transformers name, the stacks of what is
    served: A [places, rank, inputs] and B [places, outputs, rank]. `pause` is called after every linear of a forward
    that scores. With `vllms` the grouped ones only score, and what is served goes through vLLM's."""
    if len(manager.punica_wrapper_mapping) != 1:
        raise ValueError("the model has several LoRA wrappers; only text models are scored")
    shared = GroupedLora(manager.max_num_batched_tokens, manager.max_num_seqs, manager.lora_slots, device)
    if vllms:
        shared.vllms = next(iter(manager.punica_wrapper_mapping.values()))
    else:
        manager.punica_wrapper_mapping = dict.fromkeys(manager.punica_wrapper_mapping, shared)
    stacks: Pairs = {}
    for name, module in manager.modules.items():
        names = tuple(manager.packed_modules.get(name, [name]))
        for part, a, b in zip(names, module.lora_a_stacked, module.lora_b_stacked, strict=True):
            stacks[part] = (a[:, 0], b[:, 0])
        module.set_mapping(ModuleLora(names, shared, pause))
    return shared, stacks


def _add(y: torch.Tensor, x: torch.Tensor, name: str, worn: Worn) -> None:
    """y [tokens, outputs] += scaling * x A^T B^T, in place, by each adapter on its own tokens."""
    a, b = worn.pairs[name]
    each = len(x) // worn.adapters
    if each < SHORT and worn.adapters > 1:
        x, y = (t.view(worn.adapters, each, t.shape[1]) for t in (x, y))
        y.baddbmm_(torch.bmm(x, a.transpose(1, 2)), b.transpose(1, 2), alpha=worn.scaling)
        return
    for i in range(worn.adapters):
        mine = slice(i * each, (i + 1) * each)
        y[mine].addmm_(x[mine] @ a[i].T, b[i].T, alpha=worn.scaling)
