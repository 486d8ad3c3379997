"""Tiny quantised checkpoints, and the float32 twins that say what they mean. Knows file formats, no engine, no room.

Written without any quantisation toolkit: round to nearest, as compressed-tensors, AutoAWQ and AutoGPTQ store it. What
is not quantised is stored in float16, in values that bfloat16 and float32 hold as well, so that the twin is exact.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

Scheme = Literal["w4a16", "w4a16-asym", "w8a16", "awq", "gptq", "w8a8", "fp8"]
State = dict[str, torch.Tensor]
GROUP = 32  # inputs that share a scale
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "gate_proj", "up_proj", "down_proj", "fc1", "fc2")
AWQ_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)  # which of eight columns each four bits of an AWQ word hold, lowest first


def _compressed(form: str, weights: dict[str, Any], inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    group = {
        "targets": ["Linear"],
        "weights": {"symmetric": True, "dynamic": False, **weights},
        "output_activations": None,
    }
    group["input_activations"] = inputs and {"symmetric": True, "strategy": "token", "dynamic": True, **inputs}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


_GROUPED = {"type": "int", "strategy": "group", "group_size": GROUP}
CONFIGS: dict[Scheme, dict[str, Any]] = {
    "w4a16": _compressed("pack-quantized", {**_GROUPED, "num_bits": 4}),
    "w4a16-asym": _compressed("pack-quantized", {**_GROUPED, "num_bits": 4, "symmetric": False}),
    "w8a16": _compressed("pack-quantized", {**_GROUPED, "num_bits": 8}),
    "w8a8": _compressed(
        "int-quantized", {"type": "int", "num_bits": 8, "strategy": "channel"}, {"type": "int", "num_bits": 8}
    ),
    "fp8": _compressed(
        "float-quantized", {"type": "float", "num_bits": 8, "strategy": "channel"}, {"type": "float", "num_bits": 8}
    ),
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True, "lm_head": False},
}


def quantised(source: Path, scheme: Scheme, folder: Path) -> tuple[Path, Path]:
    """Write (once) a plain checkpoint's quantised form and its dequantised float32 twin; returns both folders."""
    path, twin = folder / f"{source.name}-{scheme}", folder / f"{source.name}-{scheme}-twin"
    if (path / "model.safetensors").exists():
        return path, twin
    stored: State = {}
    meant: State = {}
    for name, weight in load_file(source / "model.safetensors").items():
        module, _, last = name.rpartition(".")
        if last == "weight" and module.rpartition(".")[2] in LINEARS:
            parts, value = quantise(weight.float(), scheme)
            stored |= {f"{module}.{part}": tensor.contiguous() for part, tensor in parts.items()}
            meant[name] = value.contiguous()
        else:
            stored[name] = weight.bfloat16().half()
            meant[name] = stored[name].float()
    for target, state in ((path, stored), (twin, meant)):
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors"))
        save_file(state, target / "model.safetensors", {"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    config |= {"dtype": "float16", "quantization_config": CONFIGS[scheme]}
    (path / "config.json").write_text(json.dumps(config, indent=2))
    return path, twin


def quantise(weight: torch.Tensor, scheme: Scheme) -> tuple[State, torch.Tensor]:
    """The stored tensors of one linear's weight [outputs, inputs], and the float32 weight that they stand for."""
    outputs, inputs = weight.shape
    if scheme == "fp8":
        scale = _short(weight.abs().amax(1, keepdim=True) / 448)
        codes = (weight / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
        return {"weight": codes, "weight_scale": scale}, codes.float() * scale
    if scheme == "w8a8":
        codes, scale, value = _about_zero(weight, 8, inputs)
        return {"weight": codes, "weight_scale": scale}, value
    shape = torch.tensor([outputs, inputs])
    if scheme in ("w4a16", "w8a16"):
        bits = 4 if scheme == "w4a16" else 8
        codes, scale, value = _about_zero(weight, bits, GROUP)
        return {
            "weight_packed": _words(codes.int() + 2 ** (bits - 1), bits),
            "weight_scale": scale.half(),
            "weight_shape": shape,
        }, value
    if scheme == "gptq":
        codes, scale, value = _about_zero(weight, 4, GROUP)
        groups = torch.arange(inputs, dtype=torch.int32) // GROUP
        zeros = _words(torch.full((inputs // GROUP, outputs), 7))  # GPTQ stores the zero point less one
        words = _words(codes.int() + 8).T
        return {"qweight": words, "qzeros": zeros, "scales": scale.T.half(), "g_idx": groups}, value
    codes, scale, zero, value = _above_zero_point(weight)
    if scheme == "awq":
        words, zeros = _words(codes.T, 4, AWQ_COLUMNS), _words(zero.T, 4, AWQ_COLUMNS)
        return {"qweight": words, "qzeros": zeros, "scales": scale.T.half()}, value
    return {
        "weight_packed": _words(codes),
        "weight_scale": scale.half(),
        "weight_shape": shape,
        "weight_zero_point": _words(zero.T).T,
    }, value


def _short(scale: torch.Tensor) -> torch.Tensor:
    """Scales that every float type holds exactly."""
    return scale.bfloat16().float()


def _about_zero(weight: torch.Tensor, bits: int, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    top = 2 ** (bits - 1) - 1
    grouped = weight.reshape(len(weight), -1, group)
    scale = _short(grouped.abs().amax(-1, keepdim=True) / top)
    codes = (grouped / scale).round().clamp(-top - 1, top)
    return codes.flatten(1).to(torch.int8), scale[:, :, 0], (codes * scale).flatten(1)


def _above_zero_point(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    grouped = weight.reshape(len(weight), -1, GROUP)
    low, high = grouped.amin(-1, keepdim=True).clamp(max=0), grouped.amax(-1, keepdim=True).clamp(min=0)
    scale = _short((high - low) / 15)
    zero = (-low / scale).round().clamp(0, 15)
    codes = (grouped / scale + zero).round().clamp(0, 15)
    return codes.flatten(1).int(), scale[:, :, 0], zero[:, :, 0].int(), ((codes - zero) * scale).flatten(1)


def _words(values: torch.Tensor, bits: int = 4, order: tuple[int, ...] | None = None) -> torch.Tensor:
    """A row's unsigned values of `bits`, as many to an int32 as fit, the one of `order[0]` in the lowest bits."""
    runs = values.reshape(len(values), -1, 32 // bits).long()
    words = torch.zeros(runs.shape[:2], dtype=torch.long)
    for i, place in enumerate(order or range(32 // bits)):
        words |= runs[:, :, place] << bits * i
    return words.to(torch.int32)
