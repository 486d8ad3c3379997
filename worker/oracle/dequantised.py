"""Plain float models from quantised checkpoints, for the oracle. Knows file formats and transformers, no vLLM.

Written from the formats themselves (compressed-tensors' int-quantized, float-quantized and pack-quantized, AutoAWQ's
gemm layout, AutoGPTQ's), so that the oracle shares no kernel and no unpacking with the engine it judges. Where the
format rounds activations too, the model's linears round their inputs in the same way.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

from worker.quantisation import rounded_inputs
from worker.types import CannotCompute

AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # place in an AWQ word of the j-th of its eight columns
PARTS = (
    *("weight_packed", "weight_shape", "weight_scale", "weight_zero_point", "input_scale", "input_zero_point"),
    *("qweight", "qzeros", "scales", "g_idx"),
)
State = dict[str, torch.Tensor]


def load_model(path: str | Path, dtype: str = "float32") -> Any:
    """The causal LM in a local folder with every weight a plain `dtype` tensor, whether or not it is stored quantised.

    Raises CannotCompute for a quantised format that is not known here.
    """
    kind = getattr(torch, dtype)
    config = AutoConfig.from_pretrained(str(path), local_files_only=True)
    quantisation = getattr(config, "quantization_config", None)
    if not quantisation:
        return AutoModelForCausalLM.from_pretrained(str(path), dtype=kind, local_files_only=True)
    stored = _stored(Path(path))
    state = {name: tensor.to(kind) for name, tensor in dequantised(stored, quantisation).items()}
    del config.quantization_config
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
        None, config=config, state_dict=state, dtype=kind
    )
    _round_inputs(model, {name.rpartition(".")[0] for name in stored if name.rpartition(".")[2] in PARTS}, quantisation)
    return model


def dequantised(state: State, quantisation: Mapping[str, Any]) -> State:
    """The tensors of a checkpoint with `X.weight` in float32 [outputs, inputs] for every quantised linear X; the rest
    as stored. Raises CannotCompute for a format that is not known here."""
    out = {name: tensor for name, tensor in state.items() if name.rpartition(".")[2] not in PARTS}
    linears: dict[str, State] = {}
    for name, tensor in state.items():
        linear, _, part = name.rpartition(".")
        if part in PARTS:
            linears.setdefault(linear, {})[part] = tensor
    method = quantisation.get("quant_method")
    for linear, parts in linears.items():
        if method == "compressed-tensors":
            weight = _compressed(linear, parts | {"weight": state.get(f"{linear}.weight")})
        elif method == "awq":
            weight = _awq(parts, int(quantisation["bits"]))
        elif method == "gptq":
            weight = _gptq(parts, int(quantisation["bits"]), str(quantisation.get("checkpoint_format", "gptq")))
        else:
            raise CannotCompute(f"cannot read a checkpoint quantised as {method!r}")
        out[f"{linear}.weight"] = weight.contiguous()
    return out


def unpacked(words: torch.Tensor, bits: int, dim: int) -> torch.Tensor:
    """Unsigned values of int32 `words` [rows, columns], lowest bits first, spread out along `dim`; int32."""
    values = [(words >> shift) & ((1 << bits) - 1) for shift in range(0, 32 // bits * bits, bits)]
    return torch.stack(values, dim + 1).flatten(dim, dim + 1)


def _compressed(linear: str, parts: Mapping[str, torch.Tensor | None]) -> torch.Tensor:
    scale = parts["weight_scale"]
    packed, plain, zeros = parts.get("weight_packed"), parts.get("weight"), parts.get("weight_zero_point")
    assert scale is not None
    if packed is None:
        if plain is None or plain.dtype not in (torch.int8, torch.float8_e4m3fn) or zeros is not None:
            raise CannotCompute(f"cannot read the quantised weight of {linear}")
        return _scaled(plain.float(), scale.reshape(-1, scale.shape[-1] if scale.dim() > 1 else 1))
    shape = parts["weight_shape"]
    assert shape is not None
    outputs, inputs = (int(n) for n in shape)
    bits = next((b for b in (4, 8) if packed.dtype == torch.int32 and packed.shape[1] == -(-inputs // (32 // b))), None)
    if bits is None:
        raise CannotCompute(f"cannot read the packed weight of {linear}: neither 4 nor 8 bits")
    half = 1 << (bits - 1)
    values = unpacked(packed, bits, 1)[:, :inputs].float()
    zero = torch.full_like(scale, half).float() if zeros is None else unpacked(zeros, bits, 0)[:outputs].float()
    return _scaled(values, scale, zero)


def _awq(parts: State, bits: int) -> torch.Tensor:
    if bits != 4:
        raise CannotCompute(f"cannot read AWQ of {bits} bits; only 4")
    order = torch.tensor(AWQ_ORDER)
    columns = (torch.arange(8 * parts["qweight"].shape[1]).reshape(-1, 8)[:, order]).flatten()
    values, zeros = (unpacked(parts[name], 4, 1)[:, columns] for name in ("qweight", "qzeros"))
    return _scaled(values.T.float(), parts["scales"].T, zeros.T.float())


def _gptq(parts: State, bits: int, form: str) -> torch.Tensor:
    values = unpacked(parts["qweight"], bits, 0)  # [inputs, outputs]
    zeros = unpacked(parts["qzeros"], bits, 1) + (0 if form == "gptq_v2" else 1)  # the first version stores one less
    scales = parts["scales"].float()
    in_order = torch.arange(len(values)) // (len(values) // len(scales))
    group = parts["g_idx"].long() if "g_idx" in parts else in_order
    return ((values - zeros[group]).float() * scales[group]).T


def _scaled(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None = None) -> torch.Tensor:
    """(values [outputs, inputs] - zero) * scale, both [outputs or 1, groups]: equal runs of inputs share one."""
    grouped = values.reshape(len(values), scale.shape[1], -1)
    if zero is not None:
        grouped = grouped - zero[:, :, None]
    return (grouped * scale.float()[:, :, None]).flatten(1)


def _stored(path: Path) -> State:
    state: State = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            state |= {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    return state


def _round_inputs(model: Any, linears: set[str], quantisation: Mapping[str, Any]) -> None:
    """Where inputs are int8 or fp8, quantised per token as they come, round what reaches these linears."""
    inputs = rounded_inputs(quantisation)
    if inputs is None:
        return
    if not inputs.get("dynamic") or inputs.get("strategy") != "token" or not inputs.get("symmetric"):
        raise CannotCompute("cannot round inputs other than dynamically, per token and symmetrically")
    rounded = _int8_rows if inputs.get("type", "int") == "int" else _fp8_rows
    for name in linears:
        model.get_submodule(name).register_forward_pre_hook(lambda _, args: (rounded(args[0]),))


def _int8_rows(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().amax(-1, keepdim=True).float() / 127
    return ((x / scale.clamp_min(1e-30)).round().clamp(-128, 127) * scale).to(x.dtype)


def _fp8_rows(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().amax(-1, keepdim=True).float() / 448
    return ((x / scale.clamp_min(1e-30)).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale).to(x.dtype)
