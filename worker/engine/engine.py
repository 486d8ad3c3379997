"""One resident vLLM engine and forward passes outside its scheduler. What depends on vLLM's version is here and beside
it. Knows token ids and slots, no trials.

KV ownership. Whole sequences are scored in a scratch cache that the engine's block pool has never seen
(`worker.engine.prefill`). Prompts that many probes continue are the exception, and touch no block: a forward of the
bare base hands out its keys and values as tensors, and a later forward's attention is told to read them
(`worker.engine.attention`). Both work by standing in for the attention layers' own `forward`, which has been the same
in every version of vLLM and on every device, where the layout of a paged cache has not.

One thread owns the engine and everything here happens on it (`worker.engine.owner`). A forward that scores pauses where
the owner has something to serve: after every linear, every layer's attention and every part of the logits. What it has
set of the process is put aside for that time, so that vLLM's own step runs as though nothing else did, and put back.
"""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import vllm
from numpy.typing import NDArray
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.forward_context import override_forward_context, set_forward_context
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.v1.engine.llm_engine import LLMEngine

from worker.engine import graphs as cuda_graphs
from worker.engine import kernels, places, processor, sampling
from worker.engine.attending import Attending
from worker.engine.attention import BranchAttention
from worker.engine.depth import Depth
from worker.engine.lora import Worn
from worker.engine.owner import Owner
from worker.engine.pieces import Pieces
from worker.engine.prefill import Prefill, ScratchCache, prefill
from worker.engine.start import sizes, start

TOGETHER = 96  # tokens: on a CPU copying short prompts side by side is cheaper than a call for each; long ones are not


class Engine:
    """A vLLM engine of one base model on this process's device, made and used on the thread of its `owner`.

    `max_rank` bounds what is scored and served; a step of vLLM's scheduler takes `serve_tokens`, out of keys and values
    of `serve_cache` tokens (at least of a context), for adapters in `serve_slots` places. With a `name` vLLM counts
    what it serves under it; with `graphs` it serves by kernels of its own, in CUDA graphs. `modules` maps every linear
    that an adapter may act on, by its transformers name, to (inputs, outputs). `context` is the longest sequence,
    `vocab` the number of logits, `rows` of how many tokens they are computed at once, `token_bytes` what a token's keys
    and values take, `places` hold what requests wear; within the contexts of `depth` a forward has some of the layers.
    Raises ValueError for an unsupported architecture or rank, CannotCompute for a dtype or a quantised format that this
    device does not compute.
    """

    def __init__(
        self,
        path: str | Path,
        owner: Owner,
        *,
        dtype: str,
        max_rank: int,
        serve_tokens: int,
        serve_slots: int,
        serve_cache: int = 0,
        name: str | None = None,
        graphs: bool = False,
    ) -> None:
        owner.demand()
        self.owner = owner
        self.dtype = processor.named(dtype)
        of = sizes(path, self.dtype)
        self.context, self.vocab, self.width, self.token_bytes = of.context, of.vocab, of.width, of.token_bytes
        self._llm = start(
            path, of, dtype=dtype, max_rank=max_rank, serve_tokens=serve_tokens, serve_slots=serve_slots,
            serve_cache=serve_cache, name=name, graphs=graphs,
        )  # fmt: skip
        self._runner = self._llm.llm_engine.model_executor.driver_worker.worker.model_runner
        self.device: torch.device = self._runner.device
        self.together = TOGETHER if self.device.type == "cpu" else 1 << 62
        self._ahead = cuda_graphs.ahead(self.device)
        self._take_attention()
        self._lora, self.places = places.install(self._runner, self.pause, owner.demand, graphs)
        sampling.install(self._runner)
        self.modules = self.places.modules
        kernels.use(self._runner.model, self.device)
        self.depth = Depth(self._runner.model)
        pieces = Pieces(self._lora, self.modules)
        pieces.install(self._runner.model, self._runner.lora_manager._adapter_manager.modules)
        self.rows = pieces.rows(self.vocab * self._config.model_config.get_hidden_size())
        self._pairs = pieces.pairs(self._layers[0].num_heads * self._layers[0].head_size)

    def _take_attention(self) -> None:
        """Learn which layers attend, and make the cache that they share while whole sequences are scored."""
        self._config = self._runner.vllm_config
        self._group = self._runner.attn_groups[0][0]
        cache = self._runner.kv_cache_config
        if len(cache.kv_cache_groups) != 1 or len(self._runner.attn_groups[0]) != 1:
            raise ValueError("the model mixes kinds of attention; one scratch cache cannot hold them")
        self._layers = [self._config.compilation_config.static_forward_context[n] for n in self._group.layer_names]
        self._attending = Attending(self._layers, self._group.layer_names, self.pause)
        self._scratch = ScratchCache(self._layers, cache.num_blocks)
        shared = self._group.get_metadata_builder(0)  # which serving uses in the middle of a forward of ours
        self._builder = type(shared)(shared.kv_cache_spec, shared.layer_names, shared.vllm_config, shared.device)

    def pause(self) -> None:
        """Let the owner serve, if there is something to serve; in the middle of a forward or between two."""
        self._ahead.stretch()
        if not self.owner.gives_way():
            return
        with (
            torch.inference_mode(False),
            override_forward_context(None),
            self._lora.aside(),
            self._scratch.aside(),
            self._attending.aside(),
            self.depth.aside(),
        ):
            self.owner.pause()

    def forward(self, ids: NDArray[np.int32], lengths: Sequence[int], worn: Sequence[Worn]) -> torch.Tensor:
        """Hidden states [tokens, width] of whole sequences of these `lengths`, `ids` [tokens] end to end, each
        attending to itself only."""
        of = prefill(lengths, self._builder, self.device, self._pairs)

        def attend(number: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
            return self._attending.own(number, of, query, key, value)

        with self._attending.by(attend):
            return self._prefilled(ids, of, worn)

    def keys_and_values(self, sequences: Sequence[NDArray[np.int32]]) -> list[torch.Tensor]:
        """Those of whole sequences under the bare base, each [layers, 2, key heads, length, width]."""
        lengths = [len(s) for s in sequences]
        layer = self._layers[0]
        size = (len(self._layers), 2, layer.num_kv_heads, sum(lengths), layer.head_size)
        kept = torch.empty(size, dtype=self.dtype, device=self.device)

        of = prefill(lengths, self._builder, self.device, self._pairs)

        def keep(number: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
            for part, given in enumerate((key, value)):
                kept[number, part] = given.view(-1, layer.num_kv_heads, layer.head_size).transpose(0, 1)
            return self._attending.own(number, of, query, key, value)

        with self._attending.by(keep):
            self._prefilled(np.concatenate(sequences), of, ())
        ends = np.cumsum(lengths)
        return [kept[:, :, :, end - length : end].contiguous() for end, length in zip(ends, lengths, strict=True)]

    def forward_branched(
        self,
        ids: NDArray[np.int32],
        positions: NDArray[np.int64],
        attention: BranchAttention,
        worn: Sequence[Worn],
    ) -> torch.Tensor:
        """Hidden states [tokens, width] of `ids` at `positions` [tokens] that see what `attention` says."""

        def attend(number: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **_: Any) -> torch.Tensor:
            own = self._layers[number]
            q = query.view(-1, own.num_heads, own.head_size)
            k, v = (x.view(-1, own.num_kv_heads, own.head_size) for x in (key, value))
            out = attention(number, q, k, v, own.impl.scale).reshape(query.shape)
            self.pause()
            return out

        with self._attending.by(attend):
            return self._run(ids, torch.from_numpy(positions).to(self.device), worn)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, vocab] logits of hidden states [rows, width], in the model's dtype; before it, a pause."""
        self.owner.demand()
        self.pause()
        with torch.inference_mode():
            logits: torch.Tensor = self._runner.model.compute_logits(hidden)
        return logits

    def add_request(
        self,
        request: str,
        ids: Sequence[int],
        drawn: vllm.SamplingParams,
        adapter: LoRARequest | None = None,
        start: int = 0,
        salt: str | None = None,
    ) -> None:
        """Queue a request by this name for the steps to come. It wears what `places` gave from token `start` of its
        prompt on, and shares prompts' keys and values with requests of the same `salt`, with nobody where that is None.
        Raises ValueError for one that the model cannot take, NotHeld for an adapter that has no place."""
        self.owner.demand()
        prompt = tokens_input(list(ids), cache_salt=request if salt is None else salt)
        if adapter is not None:
            adapter, drawn = self.places.worn(adapter, drawn, start)
        self._llm.llm_engine.add_request(request, prompt, drawn, lora_request=adapter)

    @property
    def runnable(self) -> bool:
        """Whether a step would move a request."""
        return bool(self._llm.llm_engine.has_unfinished_requests())

    def step(self) -> list[vllm.RequestOutput]:
        """One step of vLLM's scheduler: what the requests in it have come to."""
        self.owner.demand()
        return list(self._llm.llm_engine.step())

    @property
    def served(self) -> LLMEngine:
        """vLLM's own engine, for what serves through it on this thread."""
        return self._llm.llm_engine

    def versions(self) -> dict[str, str]:
        return {"vllm": vllm.__version__, "torch": torch.__version__}

    def close(self) -> None:
        """Give back the model, its memory and the process group; another engine may be started afterwards."""
        self.owner.demand()
        self._llm.llm_engine.engine_core.shutdown()
        del self._llm, self._runner, self._config, self._group, self._layers, self._lora, self._scratch, self._builder
        del self.depth, self._attending
        cleanup_dist_env_and_memory()
        gc.collect()

    def _prefilled(self, ids: NDArray[np.int32], of: Prefill, worn: Sequence[Worn]) -> torch.Tensor:
        with self._scratch.bound(of.blocks):
            return self._run(ids, of.positions, worn, of)

    def _run(
        self, ids: NDArray[np.int32], positions: torch.Tensor, worn: Sequence[Worn], of: Prefill | None = None
    ) -> torch.Tensor:
        self.owner.demand()
        metadata, slots = (None, None) if of is None else of.parts[0].told(self._group.layer_names)
        with (
            torch.inference_mode(),
            self._lora.scoring(worn),
            set_forward_context(metadata, self._config, num_tokens=len(ids), slot_mapping=slots),
        ):
            tokens = torch.from_numpy(ids).to(self.device)
            hidden: torch.Tensor = self._runner.model(input_ids=tokens, positions=positions)
        return hidden
