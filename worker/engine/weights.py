"""Kernels of ours for linears on quantised weights, on a CPU. Know vLLM's layers and checkpoints' layouts, no trials.

vLLM's own are faster or save memory where they are right; what they do depends on the processor. For 4-bit weights
vLLM has one in half precision only, whose rounding is as large as the difference of two nearby losses, and none without
AVX-512; for int8 one that saturates without VNNI and one for AMX that refuses float32 and ends the process in float16.
These unpack a layer into one shared float32 buffer and multiply there, which is right on every processor.
"""

from functools import lru_cache

import torch
from torch.nn import functional as F
from vllm import _custom_ops as ops
from vllm.model_executor.kernels.linear import (
    ChannelWiseTorchFP8ScaledMMLinearKernel,
    CPUInt8ScaledMMLinearKernel,
    CPUWNA16LinearKernel,
    MPLinearKernel,
    MPLinearLayerConfig,
)
from vllm.model_executor.layers.quantization.utils.quant_utils import unpack_quantized_values_into_int32
from vllm.scalar_type import scalar_types

from worker.engine import processor

SIGNED = {scalar_types.uint4b8: 4, scalar_types.uint8b128: 8}  # values about a fixed middle
UNSIGNED = {scalar_types.uint4: 4, scalar_types.uint8: 8}  # values above a stored zero point
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Unpacked:
    """Float32, as large as the largest layer of the process, and used by all: no layer's weights outlive its call."""

    _buffer = torch.empty(0)

    @classmethod
    def reserve(cls, outputs: int, inputs: int) -> None:
        if cls._buffer.numel() < inputs * outputs:
            cls._buffer = torch.empty(inputs * outputs, dtype=torch.float32)  # the default is the model's dtype

    @classmethod
    def weight(cls, outputs: int, inputs: int) -> torch.Tensor:
        return cls._buffer[: inputs * outputs].view(outputs, inputs)


class FloatWeights(MPLinearKernel):  # type: ignore[misc]  # vllm is untyped here
    """Linear layers with integer weights of 4 or 8 bits, multiplied in float32.

    `codes` [outputs, inputs] holds two's complement values about the middle, 4-bit ones two a byte: input i in the low
    half, input i + inputs / 2 in the high half. Weight = (code - offset) * scale, one scale and offset a group.
    """

    @classmethod
    def get_min_capability(cls) -> int:
        return -1

    @classmethod
    def can_implement(cls, c: MPLinearLayerConfig) -> tuple[bool, str | None]:
        if c.act_type not in DTYPES or c.weight_type not in SIGNED | UNSIGNED:
            return False, "only float activations and integer weights of 4 or 8 bits"
        if c.partition_weight_shape[0] % 2:
            return False, "an odd number of inputs"
        vllms_own = hasattr(torch.ops._C, "cpu_gemm_wna16") and CPUWNA16LinearKernel.can_implement(c)[0]
        if c.act_type != torch.float32 and vllms_own:
            return False, "vLLM's own kernel does it in half precision here"
        return True, None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Turn whatever layout the checkpoint has, [outputs, inputs] or [inputs, outputs], into ours."""
        inputs, outputs = self.config.partition_weight_shape
        bits = (SIGNED | UNSIGNED)[self.config.weight_type]
        half = 1 << (bits - 1)
        stored, scale = getattr(layer, self.w_q_name), getattr(layer, self.w_s_name)
        values = unpack_quantized_values_into_int32(stored.data, self.config.weight_type, stored.packed_dim)
        values = (values if stored.output_dim == 0 else values.T)[:outputs, :inputs] - half
        by_output = scale.data if scale.output_dim == 0 else scale.data.T
        self._scale = by_output.float().contiguous()[:, :, None]
        self._offset: torch.Tensor | None = None
        if self.config.zero_points:
            assert self.w_zp_name is not None
            zeros = getattr(layer, self.w_zp_name)
            offset = unpack_quantized_values_into_int32(zeros.data, self.config.weight_type, zeros.packed_dim)
            self._offset = ((offset if zeros.output_dim == 0 else offset.T)[:outputs] - half).float()[:, :, None]
        if bits == 4:
            values = (values[:, : inputs // 2] & 15) | (values[:, inputs // 2 :] << 4)
        codes = torch.nn.Parameter(values.to(torch.int8).contiguous(), requires_grad=False)
        setattr(layer, self.w_q_name, codes)  # LoRA layers ask it for the device
        for name in (self.w_s_name, self.w_zp_name):
            if name is not None and hasattr(layer, name):
                setattr(layer, name, None)
        Unpacked.reserve(outputs, inputs)

    def apply_weights(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        inputs, outputs = self.config.partition_weight_shape
        codes = getattr(layer, self.w_q_name)
        weight = Unpacked.weight(outputs, inputs)
        if codes.shape[1] == inputs:
            weight.copy_(codes)
        else:
            weight[:, : inputs // 2].copy_((codes << 4) >> 4)  # shifts of int8 keep the sign
            weight[:, inputs // 2 :].copy_(codes >> 4)
        grouped = weight.view(outputs, self._scale.shape[1], -1)
        if self._offset is not None:
            grouped.sub_(self._offset)
        grouped.mul_(self._scale)
        return F.linear(x.float(), weight, None if bias is None else bias.float()).to(x.dtype)


class Int8Weights(CPUInt8ScaledMMLinearKernel):  # type: ignore[misc]
    """Linear layers with int8 weights and inputs rounded to int8 per token as they come: by vLLM's oneDNN kernel where
    its sums are right, otherwise in float32, where they are exact up to 1,040 inputs and nearly so beyond."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        name = self.layer_param_names[0]
        if int8_fault(torch.get_default_dtype()) is None:  # the model's dtype, while vLLM loads it
            self.linear_method = self._apply_weights_onednn
            self.process_weights_for_onednn(layer)
            # oneDNN has taken the weight; LoRA layers ask it for the device, which an empty one can say.
            setattr(layer, name, torch.nn.Parameter(torch.empty(0, dtype=torch.int8), requires_grad=False))
        else:
            self.linear_method = self._apply_weights_float
            Unpacked.reserve(*getattr(layer, name).shape)

    def _apply_weights_float(
        self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        codes, scale, *_ = self._get_layer_params(layer)
        weight = Unpacked.weight(*codes.shape).copy_(codes)
        rows = x.float()
        step = rows.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
        out = F.linear((rows / step).round_().clamp_(-128, 127), weight).mul_(step).mul_(scale.float().view(1, -1))
        return (out if bias is None else out.add_(bias)).to(x.dtype)


class Fp8Weights(ChannelWiseTorchFP8ScaledMMLinearKernel):  # type: ignore[misc]
    """Linear layers with fp8 weights and inputs rounded to fp8 per token, multiplied in float32, which is exact. torch
    does the same value by value (a hundred times slower), or hands it to oneDNN, which refuses it at some levels."""

    def get_output_padding(self) -> int | None:
        return None

    def apply_scaled_mm(
        self,
        *,
        A: torch.Tensor,
        B: torch.Tensor,
        out_dtype: torch.dtype,
        As: torch.Tensor,
        Bs: torch.Tensor,
        bias: torch.Tensor | None,
        output_shape: list[int],
    ) -> torch.Tensor:
        """A [tokens, inputs] and B [inputs, outputs] in fp8, their scales [tokens, 1] and [outputs, 1]."""
        Unpacked.reserve(B.shape[1], B.shape[0])
        weight = Unpacked.weight(B.shape[1], B.shape[0]).copy_(B.t())
        out = F.linear(A.float(), weight).mul_(As.float()).mul_(Bs.float().view(1, -1))
        return (out if bias is None else out.add_(bias)).to(out_dtype).view(*output_shape)


@lru_cache
def int8_fault(kind: torch.dtype) -> str | None:
    """What is wrong on this processor with vLLM's oneDNN kernel for int8, results in dtype `kind`; None if right."""
    return processor.fault(_int8_product, kind)


def _int8_product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """As `Int8Weights` calls it, on values that rounding to 8 bits leaves as they are."""
    size = w.float().abs().amax(-1, keepdim=True) / 127
    codes = (w / size).round().to(torch.int8)
    azp = codes.t().sum(0, keepdim=True, dtype=torch.float32) * size.squeeze()
    handler = ops.create_onednn_scaled_mm(codes.t(), size, x.dtype, True, False, 32)
    rows, step, zero = ops.onednn_scaled_int8_quant(x, None, None, True)
    out = torch.empty(len(x), len(w), dtype=x.dtype)
    ops.onednn_scaled_mm(handler, rows, out, step, zero, azp, None)
    return out
