"""What vLLM lacks to score on quantised weights, and which formats go where. Knows vLLM's kernels, no trials.

vLLM's own CPU kernel for 4-bit weights computes in float16 or bfloat16 only, whose rounding is as large as the
difference of two nearby losses. `FloatWeights` keeps the weights packed and computes in float32: each forward unpacks
a layer into one shared buffer, which costs about a hundredth of the layer's matrix product at a wave's length.
"""

from collections.abc import Mapping
from typing import Any

import torch
from vllm.model_executor.kernels import linear as kernels
from vllm.model_executor.kernels.linear import CPUInt8ScaledMMLinearKernel, MPLinearKernel, MPLinearLayerConfig
from vllm.model_executor.layers.quantization.auto_awq import AutoAWQConfig
from vllm.model_executor.layers.quantization.auto_gptq import AutoGPTQConfig
from vllm.model_executor.layers.quantization.utils.quant_utils import unpack_quantized_values_into_int32
from vllm.platforms import PlatformEnum, current_platform
from vllm.scalar_type import scalar_types

SIGNED = {scalar_types.uint4b8: 4, scalar_types.uint8b128: 8}  # values about a fixed middle
UNSIGNED = {scalar_types.uint4: 4, scalar_types.uint8: 8}  # values above a stored zero point


def prepare(quantisation: Mapping[str, Any] | None, dtype: str) -> None:
    """Make vLLM ready for a base with this `quantization_config` (None: a plain one) in `dtype` on this device.

    Call before the engine is made. Raises ValueError, naming what is supported, for a format or dtype that is not.
    """
    if quantisation is None:
        return
    if not current_platform.is_cpu():
        if dtype == "float32":
            raise ValueError(
                f"a {_named(quantisation)} base computes in float16 or bfloat16 on this device, not float32"
            )
        return
    why = _refusal(quantisation)
    if why is not None:
        raise ValueError(
            f"cannot score a {_named(quantisation)} base on a CPU: {why}. Supported there: compressed-tensors "
            "pack-quantized (4 or 8 bits, weights only), int-quantized and float-quantized (8 bits, weights per output "
            "and inputs per token); AWQ and symmetric GPTQ of 4 bits"
        )
    _install()


def _named(quantisation: Mapping[str, Any]) -> str:
    return " ".join(str(quantisation[key]) for key in ("quant_method", "format") if quantisation.get(key))


def _refusal(quantisation: Mapping[str, Any]) -> str | None:
    """Why this CPU engine does not take a format; None where it does."""
    method, bits = quantisation.get("quant_method"), quantisation.get("bits")
    if method == "awq":
        return None if bits == 4 and quantisation.get("zero_point") else "it is not AWQ of 4 bits with zero points"
    if method == "gptq":
        plain = bits == 4 and quantisation.get("sym") and not quantisation.get("desc_act")
        return None if plain else "it is not GPTQ of 4 bits, symmetric and without desc_act"
    if method != "compressed-tensors":
        return f"vLLM has no CPU kernel for {method!r} linears"
    if quantisation.get("kv_cache_scheme"):
        return "it quantises the KV cache"
    groups = list((quantisation.get("config_groups") or {}).values())
    if not groups:
        return "it names no config_groups"
    for group in groups:
        form = group.get("format") or quantisation.get("format")
        if not _runs(str(form), group["weights"], group.get("input_activations")):
            return f"{form} with weights {group['weights']} and input_activations {group.get('input_activations')}"
        if group.get("input_activations") != groups[0].get("input_activations"):
            return "it rounds the inputs of some linears and not of others"
    return None


def _runs(form: str, weights: Mapping[str, Any], inputs: Mapping[str, Any] | None) -> bool:
    """Whether a CPU runs a compressed-tensors scheme: as packed integers, or as int8 or fp8 with inputs rounded per
    token (elsewhere vLLM 0.32 has no kernel, or one that the oracle cannot follow)."""
    kind, bits = weights.get("type", "int"), weights.get("num_bits")
    if inputs is None:
        return form == "pack-quantized" and kind == "int" and bits in (4, 8)
    per_token = inputs.get("dynamic") and inputs.get("strategy") == "token" and inputs.get("symmetric")
    fits = (form, kind) in (("int-quantized", "int"), ("float-quantized", "float"))
    return bool(
        fits and bits == 8 and inputs.get("num_bits") == 8 and per_token and weights.get("strategy") == "channel"
    )


class FloatWeights(MPLinearKernel):  # type: ignore[misc]  # vllm is untyped here
    """Linear layers with integer weights of 4 or 8 bits and float32 activations, on a CPU.

    `codes` [outputs, inputs] holds two's complement values about the middle, 4-bit ones two a byte: input i in the low
    half, input i + inputs / 2 in the high half. Weight = (code - offset) * scale, one scale and offset a group.
    """

    # Float32, as large as the largest layer of the process, and used by all: no layer's weights outlive its call.
    _buffer = torch.empty(0)

    @classmethod
    def get_min_capability(cls) -> int:
        return -1

    @classmethod
    def can_implement(cls, c: MPLinearLayerConfig) -> tuple[bool, str | None]:
        if c.act_type != torch.float32 or c.weight_type not in SIGNED | UNSIGNED:
            return False, "only float32 activations and integer weights of 4 or 8 bits"
        if c.partition_weight_shape[0] % 2:
            return False, "an odd number of inputs"
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
        if FloatWeights._buffer.numel() < inputs * outputs:
            FloatWeights._buffer = torch.empty(inputs * outputs)

    def apply_weights(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        inputs, outputs = self.config.partition_weight_shape
        codes = getattr(layer, self.w_q_name)
        weight = FloatWeights._buffer[: inputs * outputs].view(outputs, inputs)
        if codes.shape[1] == inputs:
            weight.copy_(codes)
        else:
            weight[:, : inputs // 2].copy_((codes << 4) >> 4)  # shifts of int8 keep the sign
            weight[:, inputs // 2 :].copy_(codes >> 4)
        grouped = weight.view(outputs, self._scale.shape[1], -1)
        if self._offset is not None:
            grouped.sub_(self._offset)
        grouped.mul_(self._scale)
        return torch.nn.functional.linear(x, weight, bias)


class Int8Weights(CPUInt8ScaledMMLinearKernel):  # type: ignore[misc]
    """vLLM's W8A8 kernel. Without AMX it gives `weight` to oneDNN and leaves None, of which LoRA layers ask the device
    ('NoneType' object has no attribute 'device'); an empty weight answers."""

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        super().process_weights_after_loading(layer)
        name = self.layer_param_names[0]
        if getattr(layer, name) is None:
            setattr(layer, name, torch.nn.Parameter(torch.empty(0, dtype=torch.int8), requires_grad=False))


def _install() -> None:
    """Put our kernels before vLLM's, once a process, and let AWQ and GPTQ run in float32 as compressed-tensors does."""
    weights_only = kernels._POSSIBLE_KERNELS[PlatformEnum.CPU]
    if FloatWeights in weights_only:
        return
    weights_only.insert(0, FloatWeights)
    kernels._POSSIBLE_INT8_KERNELS[PlatformEnum.CPU].insert(0, Int8Weights)
    for config in (AutoAWQConfig, AutoGPTQConfig):
        dtypes = [*config.get_supported_act_dtypes(), torch.float32]
        config.get_supported_act_dtypes = classmethod(lambda _, dtypes=dtypes: dtypes)
