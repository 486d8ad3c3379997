"""A profile's file: what it may hold, read and written. Knows bytes and arrays, no method, no SQL and no disk.

One safetensors file with one line of metadata, JSON with its keys in order: what kind it is, which base (`fingerprint`
of its small files) and which tensors it was made for, and how. Its tensors, by kind, of an adapter of T tensors and P
entries: `factors` float32 [T]; `mask` uint8 [P / 8, rounded up], bits packed; `basis`, for each module by its name, A
float32 [rank, inputs]; `mlp` w1 [T, H, 5], b1 [T, H], w2 [T, H], b2 [T], float32.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from db.contract.methods.profiled import ProfileKind
from db.contract.profiles import KINDS, MOST_BYTES, Profiled, layout_of
from db.contract.tokens.architectures import Linear
from worker.types import Layout, Module

FORMAT: Final = "onward.profile/1"
KEY: Final = "onward.profile"
INPUTS: Final = 5  # of the network of a tensor
MOST_HIDDEN: Final = 256
LARGEST: Final = 1e6  # number of a network
UNIT: Final = 1e-3  # how far a direction's length may be from 1
SHAPES: Final[Mapping[ProfileKind, tuple[str, ...]]] = {
    "factors": ("factors",), "mask": ("mask",), "mlp": ("b1", "b2", "w1", "w2"), "basis": (),
}  # fmt: skip
Tensors = Mapping[str, NDArray[Any]]


class BadProfile(ValueError):
    """What is no profile, or not one that a method could follow: the message says why."""


@dataclass(frozen=True)
class Profile:
    """A profile that was read. `layout` has its modules and rank; `start` is the seed by which A begins where its mask
    is of those entries; `about` is what its maker said of it."""

    of: Profiled
    model: str
    layout: Layout
    tensors: Tensors = field(repr=False)
    start: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def told(self) -> dict[str, Any]:
        """What a row keeps of it beside its bytes."""
        targets = sorted({module.name.rpartition(".")[2] for module in self.layout.modules})
        return {"model": self.model, "rank": self.layout.rank, "targets": targets, **self.about}


def fingerprint(layout: Layout) -> str:
    return layout_of(layout.rank, linears(layout.modules))


def linears(modules: Sequence[Module]) -> list[Linear]:
    return [(module.name, module.inputs, module.outputs) for module in modules]


def written(
    kind: ProfileKind,
    base: str,
    model: str,
    layout: Layout,
    tensors: Tensors,
    start: int = 0,
    about: Mapping[str, Any] | None = None,
) -> bytes:
    """The file of a profile for the base of this fingerprint. Raises BadProfile where `read` would not take it."""
    said = {
        "about": dict(about or {}), "base": base, "format": FORMAT, "kind": kind, "model": model,
        "modules": linears(layout.modules), "rank": layout.rank, "start": start,
    }  # fmt: skip
    line = json.dumps(said, sort_keys=True, separators=(",", ":"), allow_nan=False)
    data = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata={KEY: line})
    read(data)
    return data


@lru_cache(maxsize=4)
def read(data: bytes) -> Profile:
    """The profile of this file, checked whole. Raises BadProfile."""
    if len(data) > MOST_BYTES:
        raise BadProfile(f"it has {len(data)} bytes, {MOST_BYTES} at most are read")
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        said = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][KEY])
        found = _told(said, hashlib.sha256(data).hexdigest(), tensors)
        CHECKS[found.of.kind](found)
    except BadProfile:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise BadProfile(f"it is no profile: {type(error).__name__}: {error}") from None
    for tensor in tensors.values():
        tensor.setflags(write=False)
    return found


def _told(said: Mapping[str, Any], sha256: str, tensors: Tensors) -> Profile:
    if said["format"] != FORMAT or said["kind"] not in KINDS:
        raise BadProfile(f"its format is {said['format']!r} and its kind {said['kind']!r}: neither may be another")
    modules = tuple(Module(str(name), int(inputs), int(outputs)) for name, inputs, outputs in said["modules"])
    layout = Layout(int(said["rank"]), float(said["rank"]), modules)
    if not modules or layout.rank < 1 or any(min(module.inputs, module.outputs) < 1 for module in modules):
        raise BadProfile("it is of an adapter without entries")
    start = int(said["start"])
    if not 0 <= start < 2**63:
        raise BadProfile(f"its start is {start}, which is no seed")
    of = Profiled(sha256, said["kind"], str(said["base"]), fingerprint(layout))
    found = Profile(of, str(said["model"]), layout, tensors, start, dict(said["about"]))
    wanted = SHAPES[of.kind] or tuple(sorted(module.name for module in modules))
    if tuple(sorted(tensors)) != wanted:
        raise BadProfile(f"its tensors are {', '.join(sorted(tensors))[:200]}, a {of.kind} has {len(wanted)} others")
    return found


def _tensor(of: Profile, name: str, shape: tuple[int, ...], dtype: type[Any] = np.float32) -> NDArray[Any]:
    """The tensor of this name. Raises BadProfile where it has another shape or dtype, or is not finite."""
    tensor = of.tensors[name]
    if tensor.shape != shape or tensor.dtype != dtype:
        raise BadProfile(f"{name} is {tensor.dtype} {list(tensor.shape)}: {np.dtype(dtype)} {list(shape)} is wanted")
    if not np.isfinite(tensor).all():
        raise BadProfile(f"{name} has numbers that are not finite")
    return tensor


def _factors(of: Profile) -> None:
    found = _tensor(of, "factors", (len(of.layout.shapes),))
    if (found < 0).any():
        raise BadProfile(f"a factor is negative: {float(found.min()):g}")
    if not found.any():
        raise BadProfile("the sum of its factors is 0: nothing would move")


def _mask(of: Profile) -> None:
    found = _tensor(of, "mask", (-(-of.layout.size // 8),), np.uint8)
    bits = np.unpackbits(found)
    if not bits.any():
        raise BadProfile("the sum of its mask is 0: nothing would move")
    if bits[of.layout.size :].any():
        raise BadProfile("its mask has bits behind the last entry")


def _basis(of: Profile) -> None:
    for module in of.layout.modules:
        found = _tensor(of, module.name, (of.layout.rank, module.inputs)).astype(np.float64)
        lengths = np.sqrt((found * found).sum(1))
        if (abs(lengths - 1) > UNIT).any():
            raise BadProfile(f"a direction of {module.name} has the length {float(lengths.min()):g}, not 1")


def _mlp(of: Profile) -> None:
    count = len(of.layout.shapes)
    hidden = of.tensors["b1"].shape[-1] if of.tensors["b1"].ndim == 2 else 0
    if not 1 <= hidden <= MOST_HIDDEN:
        raise BadProfile(f"its networks have {hidden} hidden numbers: 1 to {MOST_HIDDEN} are taken")
    shapes = {"w1": (count, hidden, INPUTS), "b1": (count, hidden), "w2": (count, hidden), "b2": (count,)}
    for name, shape in shapes.items():
        if np.abs(_tensor(of, name, shape)).max() > LARGEST:
            raise BadProfile(f"{name} has a number larger than {LARGEST:g}")
    if not of.tensors["w2"].any() and not of.tensors["b2"].any():
        raise BadProfile("the sum of its factors is 0: its networks say 0 whatever they read")


CHECKS: Final = {"factors": _factors, "mask": _mask, "basis": _basis, "mlp": _mlp}
