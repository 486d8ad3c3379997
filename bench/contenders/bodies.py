"""The strongest loop's own forward pass of Llama and OPT: ragged tokens end to end, fused and prepacked weights.

Knows weights and tensors; no adapter arithmetic (`adapt` is the caller's), no examples. Written from the architectures'
formulas: transformers' modules are where the weights come from and what the tests compare with.
"""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from worker.engine import processor

# (module names of one layer, their input [tokens, in], the base's output [tokens, sum of outs]) -> the adapted output
Adapt = Callable[[int, tuple[str, ...], torch.Tensor, torch.Tensor], torch.Tensor]
# (layer, q, k, v [tokens, heads or key heads, width]) -> [tokens, heads * width]
Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Packed:
    """x W^T + b with W laid out once as the machine's own kernel wants it (oneDNN's on a CPU where it packs the dtype:
    1.2 times torch's plain linear, measured); several linears of one input are one GEMM."""

    def __init__(self, linears: Sequence[Any]) -> None:
        weight = torch.cat([x.weight.detach() for x in linears]) if len(linears) > 1 else linears[0].weight.detach()
        biases = [x.bias for x in linears]
        self.bias = None if biases[0] is None else torch.cat([b.detach() for b in biases])
        self.prepacked = weight.device.type == "cpu" and weight.dtype != torch.float16 and processor.packs(weight.dtype)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, 1024) if self.prepacked else weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if self.prepacked:
            out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
            return out
        return F.linear(x, self.weight, self.bias)


def add_rms(stream: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float) -> Any:
    """The residual stream with `delta` added, and its RMS norm."""
    stream = stream + delta
    wide = stream.float()
    return stream, (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(stream.dtype) * weight


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of x [tokens, heads, width] by cos and sin [tokens, 1, width / 2]."""
    low, high = x.chunk(2, -1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


def swiglu(both: torch.Tensor) -> torch.Tensor:
    gate, up = both.chunk(2, -1)
    return F.silu(gate) * up


@dataclass
class Pieces:
    """What lies between the GEMMs, compiled where this machine can."""

    add_rms: Callable[..., Any]
    rotate: Callable[..., Any]
    swiglu: Callable[..., Any]
    compiled: bool


def pieces(compiled: bool | None = None) -> Pieces:
    """Compiled with inductor where a C++ compiler (or Triton) is found, or as asked."""
    wanted = (shutil.which("g++") is not None or torch.cuda.is_available()) if compiled is None else compiled
    if not wanted:
        return Pieces(add_rms, rotate, swiglu, False)
    own = [torch.compile(f, dynamic=True, fullgraph=True) for f in (add_rms, rotate, swiglu)]
    return Pieces(own[0], own[1], own[2], True)


class Body(ABC):
    """Token ids to the final norm's rows. `names(layer)` are transformers' names of the layer's linears."""

    heads: int
    key_heads: int
    width: int
    layers: int
    vocab: int
    head: Packed

    @abstractmethod
    def run(
        self, ids: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor, adapt: Adapt, attend: Attend
    ) -> torch.Tensor:
        """Normed hidden states [rows] of `ids` [tokens] at `positions` [tokens]. After the last attention only `rows`
        (token numbers) are computed: nothing else is read."""

    def _split(self, qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parts = qkv.view(len(qkv), self.heads + 2 * self.key_heads, self.width)
        return torch.split(parts, [self.heads, self.key_heads, self.key_heads], 1)


class LlamaBody(Body):
    """Llama and what is like it (SmolLM2; Qwen2 with its biases): RMS norms, rotary positions, gated MLP."""

    def __init__(self, model: Any, own: Pieces) -> None:
        config, core = model.config, model.model
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.layers, self._eps, self._own = config.num_hidden_layers, config.rms_norm_eps, own
        self._embed = core.embed_tokens.weight.detach()
        self._inverse = core.rotary_emb.inv_freq.detach().float()
        self._norms = [
            (x.input_layernorm.weight.detach(), x.post_attention_layernorm.weight.detach()) for x in core.layers
        ]
        self._last = core.norm.weight.detach()
        a = [x.self_attn for x in core.layers]
        self._qkv = [Packed((x.q_proj, x.k_proj, x.v_proj)) for x in a]
        self._o = [Packed((x.o_proj,)) for x in a]
        self._up = [Packed((x.mlp.gate_proj, x.mlp.up_proj)) for x in core.layers]
        self._down = [Packed((x.mlp.down_proj,)) for x in core.layers]
        self.head, self.vocab = Packed((model.lm_head,)), config.vocab_size

    def run(
        self, ids: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor, adapt: Adapt, attend: Attend
    ) -> torch.Tensor:
        angles = positions[:, None].float() * self._inverse
        stream, own = self._embed[ids], self._own
        cos, sin = angles.cos()[:, None].to(stream.dtype), angles.sin()[:, None].to(stream.dtype)
        delta = torch.zeros_like(stream)
        for i in range(self.layers):
            first, second = self._norms[i]
            stream, x = own.add_rms(stream, delta, first, self._eps)
            q, k, v = self._split(adapt(i, ("q_proj", "k_proj", "v_proj"), x, self._qkv[i](x)))
            x = attend(i, own.rotate(q, cos, sin), own.rotate(k, cos, sin), v)
            if i == self.layers - 1:
                x, stream = x[rows], stream[rows]
            delta = adapt(i, ("o_proj",), x, self._o[i](x))
            stream, x = own.add_rms(stream, delta, second, self._eps)
            x = own.swiglu(adapt(i, ("gate_proj", "up_proj"), x, self._up[i](x)))
            delta = adapt(i, ("down_proj",), x, self._down[i](x))
        _, x = own.add_rms(stream, delta, self._last, self._eps)
        out: torch.Tensor = x
        return out


class OptBody(Body):
    """OPT with norms before (all sizes but 350M): learned positions, biases, ReLU."""

    def __init__(self, model: Any, own: Pieces) -> None:
        config, core = model.config, model.model.decoder
        if not config.do_layer_norm_before or core.project_in is not None:
            raise ValueError("only OPT with layer norms before its blocks and no projections")
        self.heads = self.key_heads = config.num_attention_heads
        self.width, self.layers = config.hidden_size // self.heads, config.num_hidden_layers
        self._own = own
        self._embed, self._places = core.embed_tokens.weight.detach(), core.embed_positions.weight.detach()
        self._norms = [(x.self_attn_layer_norm, x.final_layer_norm) for x in core.layers]
        self._last = core.final_layer_norm
        self._qkv = [Packed((x.self_attn.q_proj, x.self_attn.k_proj, x.self_attn.v_proj)) for x in core.layers]
        self._o = [Packed((x.self_attn.out_proj,)) for x in core.layers]
        self._up, self._down = [Packed((x.fc1,)) for x in core.layers], [Packed((x.fc2,)) for x in core.layers]
        self.head, self.vocab = Packed((model.lm_head,)), config.vocab_size

    def run(
        self, ids: torch.Tensor, positions: torch.Tensor, rows: torch.Tensor, adapt: Adapt, attend: Attend
    ) -> torch.Tensor:
        stream = self._embed[ids] + self._places[positions + 2]
        for i in range(self.layers):
            first, second = self._norms[i]
            x = first(stream)
            q, k, v = self._split(adapt(i, ("q_proj", "k_proj", "v_proj"), x, self._qkv[i](x)))
            x = attend(i, q, k, v)
            if i == self.layers - 1:
                x, stream = x[rows], stream[rows]
            stream = stream.add_(adapt(i, ("out_proj",), x, self._o[i](x)))
            x = second(stream)
            x = adapt(i, ("fc1",), x, self._up[i](x)).relu_()
            stream = stream.add_(adapt(i, ("fc2",), x, self._down[i](x)))
        out: torch.Tensor = self._last(stream)
        return out


def body(model: Any, own: Pieces) -> Body:
    """The body of a transformers causal LM. Raises ValueError for an architecture it does not know."""
    kind = model.config.model_type
    if kind in ("llama", "qwen2"):
        return LlamaBody(model, own)
    if kind == "opt":
        return OptBody(model, own)
    raise ValueError(f"the strongest loop has no body for {kind!r}")
