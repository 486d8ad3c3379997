"""What this process's processor computes, asked of torch and oneDNN by trying. Knows torch, no model and no vLLM.

No processor is known here by its name, and no list says which can do what: a small product of the kind in question is
computed and held against float64. What torch and oneDNN were told from outside to leave unused (`ATEN_CPU_CAPABILITY`,
`ONEDNN_MAX_CPU_ISA`) counts as missing, so a lower level can be had on any better machine.
"""

from collections.abc import Callable
from functools import lru_cache

import torch

from worker.quantisation import TOLERANCES
from worker.types import CannotCompute

Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # x [rows, inputs], w [outputs, inputs] -> x w^T
ROWS, INPUTS, OUTPUTS = 8, 64, 48
LARGEST = 127
FINE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}  # of the largest value: rounding, not faults


def follow() -> None:
    """Let vLLM use no more of the processor than torch does: it asks the processor itself which of its builds to load,
    past what torch was told. To be called before vLLM is imported."""
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "DEFAULT"):
        for better in ("avx512", "avx512_bf16", "vnni", "amx_tile", "amx_fp16"):
            setattr(torch.cpu, f"_is_{better}_supported", lambda: False)


@lru_cache
def level() -> str:
    """What was found, for people: torch's level, and the dtypes that oneDNN packs weights of."""
    packed = [str(kind).removeprefix("torch.") for kind in FINE if packs(kind)]
    return f"{torch.backends.cpu.get_cpu_capability()}, oneDNN packs {' '.join(packed) or 'nothing'}"


def named(dtype: str) -> torch.dtype:
    """The torch dtype of an engine's `dtype`. Raises CannotCompute for a name that is none."""
    if dtype not in TOLERANCES:
        raise CannotCompute(f"{dtype!r} is no dtype of an engine: ONWARD_DTYPE is one of {', '.join(TOLERANCES)}")
    kind: torch.dtype = getattr(torch, dtype)
    return kind


def require(dtype: str, multiply: Product = torch.nn.functional.linear) -> None:
    """Raises CannotCompute, with the reason, where this processor does not multiply in `dtype` by `multiply`."""
    why = fault(multiply, named(dtype))
    if why is not None:
        raise CannotCompute(f"this processor ({level()}) does not compute {dtype}: {why}")


@lru_cache
def packs(kind: torch.dtype) -> bool:
    """Whether oneDNN lays out weights of this dtype once, for faster products, and multiplies rightly by them."""
    return why_unpacked(kind) is None


@lru_cache
def why_unpacked(kind: torch.dtype) -> str | None:
    """Why oneDNN does not; None where it does."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "torch is built without oneDNN"
    return fault(_packed, kind)


def _packed(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    weight = torch.ops.mkldnn._reorder_linear_weight(w, 1024)
    out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return out


def fault(multiply: Product, kind: torch.dtype) -> str | None:
    """What is wrong with a product in dtype `kind`, as its own error says or by how far it is off; None if right."""
    x, w = (tensor.to(kind) for tensor in case())
    exact = x.double() @ w.double().T
    try:
        off = float((multiply(x, w).double() - exact).abs().max() / exact.abs().max())
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        return str(error).partition("\n")[0]
    return None if off <= FINE[kind] else f"a product is off by {off:.1%}"


def case() -> tuple[torch.Tensor, torch.Tensor]:
    """x [rows, inputs] and w [outputs, inputs], float32, the same everywhere and at every call: 127 steps of 1/64 to
    either side, so that every dtype and a rounding to 8 bits hold them exactly. Short sums of the largest saturate."""
    draw = torch.Generator().manual_seed(0)
    x, w = (torch.randint(-LARGEST, LARGEST + 1, (n, INPUTS), generator=draw) for n in (ROWS, OUTPUTS))
    x[-1] = w[-1] = x[:, 0] = w[:, 0] = LARGEST
    return x / 64, w / 64
