"""Which dtypes and quantised formats this device computes, and our kernels among vLLM's. Knows formats, no trials."""

from collections.abc import Mapping
from typing import Any

import torch
from vllm.model_executor.kernels import linear
from vllm.model_executor.layers.quantization.auto_awq import AutoAWQConfig
from vllm.model_executor.layers.quantization.auto_gptq import AutoGPTQConfig
from vllm.platforms import PlatformEnum, current_platform

from worker.engine import kernels, processor
from worker.types import CannotCompute


def prepare(quantisation: Mapping[str, Any] | None, dtype: str) -> None:
    """Make vLLM ready for a base with this `quantization_config` (None: a plain one) in `dtype` on this device.

    Call before the engine is made. Raises CannotCompute, naming what is supported, for a format or dtype that is not.
    """
    if current_platform.is_cpu():
        processor.require(dtype, kernels.multiply)
    if quantisation is None:
        return
    if not current_platform.is_cpu():
        if dtype == "float32":
            raise CannotCompute(
                f"a {_named(quantisation)} base computes in float16 or bfloat16 on this device, not float32"
            )
        return
    why = _refusal(quantisation)
    if why is not None:
        raise CannotCompute(
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


def _install() -> None:
    """Put our kernels before vLLM's, once a process, and let AWQ and GPTQ run in float32 as compressed-tensors does."""
    from worker.engine.weights import FloatWeights, Fp8Weights, Int8Weights  # of vLLM's CPU kernels; a GPU needs none

    weights_only = linear._POSSIBLE_KERNELS[PlatformEnum.CPU]
    if FloatWeights in weights_only:
        return
    weights_only.insert(0, FloatWeights)
    linear._POSSIBLE_INT8_KERNELS[PlatformEnum.CPU].insert(0, Int8Weights)
    linear._POSSIBLE_FP8_KERNELS[PlatformEnum.CPU].insert(0, Fp8Weights)
    for config in (AutoAWQConfig, AutoGPTQConfig):
        dtypes = [*config.get_supported_act_dtypes(), torch.float32]
        config.get_supported_act_dtypes = classmethod(lambda _, dtypes=dtypes: dtypes)
