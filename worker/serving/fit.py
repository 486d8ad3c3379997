"""Whether an adapter may be worn: what is asked of its bytes before an engine sees any of them. Pure; knows no SQL.

What is refused here is one adapter. In the engine it would be one too, but among the tokens of others.
"""

import json
import tarfile
from typing import Final

import numpy as np
from safetensors import SafetensorError

from db.contract.receipts.form import BasePart
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base, UnknownTarget
from worker.adapters import peft_files
from worker.runs import recipes
from worker.types import Layout, Params

# Of an update's norm (scaling times those of A and B, Frobenius), a linear's. Those of weights are 10 to 300: an update
# a hundred times the largest of them is no adapter, and in the narrower dtypes it ends in numbers that are none.
MOST_NORM: Final = 3e4
CONFIG: Final = (
    "base_model_name_or_path", "r", "lora_alpha", "target_modules", "layers_to_transform", "alora_invocation_tokens",
)  # fmt: skip


class Unfit(ValueError):
    """No request may wear the adapter. `what` is one word: base, targets, rank, hash, file, finite or norm."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(why)
        self.what = what


def layout(spec: JobSpec, base: Base, max_rank: int) -> Layout:
    """The layout of the job's adapter on `base`. Raises Unfit: `base` where it is another model's, `targets` where this
    one lacks one of them, `rank` above the engine's."""
    if spec.model != base.name:
        raise Unfit("base", f"it adapts {spec.model}, not {base.name}")
    try:
        made = recipes.layout(spec, base)
    except UnknownTarget as error:
        raise Unfit("targets", str(error)) from None
    if made.rank > max_rank:
        raise Unfit("rank", f"its rank is {made.rank}: this engine takes {max_rank} at most")
    return made


def unpacked(tar: bytes, sha256: str, spec: JobSpec, layout: Layout) -> Params:
    """The parameters in a published PEFT directory. Raises Unfit: `hash` where its weights are not those that were
    published, `file` where they, or the config beside them, say something else than the job's spec."""
    try:
        files = peft_files.unpacked(tar)
        weights, config = files[peft_files.WEIGHTS], files[peft_files.CONFIG]
    except (tarfile.TarError, KeyError, ValueError, OSError) as error:
        raise Unfit("file", f"it is no PEFT directory: {error}") from None
    same(sha256, weights)
    try:
        stated, meant = json.loads(config), json.loads(peft_files.config(spec.adapter, spec.model))
        params = peft_files.params(layout, weights)
    except (SafetensorError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise Unfit("file", str(error)) from None
    if not isinstance(stated, dict):
        raise Unfit("file", "its config is no object")
    other = next((key for key in CONFIG if stated.get(key) != meant.get(key)), None)
    if other is not None:
        raise Unfit("file", f"its config says {other} {stated.get(other)!r}, its job {meant.get(other)!r}")
    return params


def same(sha256: str, weights: bytes) -> None:
    """Raises Unfit `hash` where adapter_model.safetensors is not the file with this SHA-256 (hex)."""
    found = peft_files.sha256(weights)
    if found != sha256:
        raise Unfit("hash", f"its weights have the hash {found}, not {sha256} as when they were published")


def on_base(receipt: bytes, base: BasePart) -> None:
    """Raises Unfit `base` where the receipt of an adapter tells of other files under the base model's name."""
    try:
        told = json.loads(receipt)["base"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return  # a receipt is for others to judge, and an adapter is not worth less without
    for part in ("config", "tokenizer", "weights"):
        if told.get(part) != getattr(base, part):
            raise Unfit("base", f"the base model of this name has another {part} now than when it was trained")


def sound(layout: Layout, params: Params) -> None:
    """Raises Unfit: `finite` for a number that is none, `norm` for an update that is too large."""
    if not np.isfinite(params).all():
        raise Unfit(
            "finite", f"{int((~np.isfinite(params)).sum())} of its {params.size} parameters are no finite numbers"
        )
    for module, a, b in layout.pairs(params):
        norm = layout.scaling * float(np.linalg.norm(a.astype(np.float64)) * np.linalg.norm(b.astype(np.float64)))
        if norm > MOST_NORM:
            raise Unfit("norm", f"its update of {module.name} has the norm {norm:.3g}: at most {MOST_NORM:.0f}")
