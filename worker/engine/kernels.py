"""vLLM's compiled kernels where its CPU backend would run several torch operations instead. Knows layers, no trials.

On a CPU vLLM counts on torch.compile to fuse norms and activations; an eager engine gets them operation by operation,
each a pass over memory. The kernels for it are in the wheel all the same.
"""

from functools import partial
from typing import Any

import torch
from vllm.model_executor.layers.activation import SiluAndMul
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

KERNELS = ("rms_norm", "fused_add_rms_norm", "silu_and_mul")


def use(model: torch.nn.Module, device: torch.device) -> int:
    """Let the norms and gated activations of `model` call the kernels; how many do. None where vLLM chooses them by
    itself (a GPU), or where this build lacks one."""
    if device.type != "cpu" or not all(hasattr(torch.ops._C, name) for name in KERNELS):
        return 0
    changed = 0
    module: Any
    for module in model.modules():
        if type(module) is SiluAndMul:
            module._forward_method = _silu_and_mul
        elif type(module) is RMSNorm and module.variance_size_override is None and module.has_weight:
            module._forward_method = partial(_rms_norm, module)
        else:
            continue
        changed += 1
    return changed


def _silu_and_mul(x: torch.Tensor) -> torch.Tensor:
    """silu(x[..., :d]) * x[..., d:]."""
    out = x.new_empty(*x.shape[:-1], x.shape[-1] // 2)
    torch.ops._C.silu_and_mul(out, x)
    return out


def _rms_norm(norm: Any, x: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
    """The norm of x; with a residual stream both are overwritten: by the norm of their sum, and the sum."""
    weight, eps = norm.weight.data, norm.variance_epsilon
    if residual is None:
        out = torch.empty_like(x)
        torch.ops._C.rms_norm(out, x, weight, eps)
        return out
    torch.ops._C.fused_add_rms_norm(x, residual, weight, eps)
    return x, residual


def multiply(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """x w^T by the product that vLLM chooses on a CPU for a linear of a plain base with this weight."""
    layer: Any = torch.nn.Linear(w.shape[1], w.shape[0], bias=False, dtype=w.dtype)
    layer.weight = torch.nn.Parameter(w, requires_grad=False)
    dispatch_cpu_unquantized_gemm(layer, remove_weight=False)
    out: torch.Tensor = layer.cpu_linear(x, layer.weight, None)
    return out
