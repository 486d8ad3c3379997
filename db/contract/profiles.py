"""What a profile belongs to, and which job may read it. Knows no file of one, no SQL and no arithmetic.

A profile is one safetensors file, made once for a base and for the tensors of an adapter on it, and named by the
SHA-256 of its bytes. Every tenant of the base may name it.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

from db.contract.methods import ARMS
from db.contract.methods.base import MethodSettings
from db.contract.methods.profiled import ProfiledSettings, ProfileKind
from db.contract.refusal import Unfit
from db.contract.tokens.architectures import Linear
from db.contract.tokens.base_model import Base

KINDS: Final[tuple[ProfileKind, ...]] = get_args(ProfileKind)
MOST_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class Profiled:
    """A profile as its row tells of it: what it was made for, by their fingerprints."""

    sha256: str
    kind: ProfileKind
    base: str
    layout: str


def layout_of(rank: int, modules: Sequence[Linear]) -> str:
    """The fingerprint of the tensors of an adapter of this rank on these modules, in model order. Its scaling and the
    tokens it acts on are not in it."""
    said = json.dumps([rank, [list(module) for module in modules]], separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()


def needed(method: str) -> tuple[ProfileKind, ...]:
    """The kinds of profile that a method of this name reads; none for most."""
    arm = ARMS.get(method)
    return arm.reads if arm is not None and issubclass(arm, ProfiledSettings) else ()


def check(method: MethodSettings, found: Profiled | None, base: Base, layout: str) -> None:
    """Raises Unfit where the profile that `method` names is not there (None), or is not one for it on this adapter."""
    if not isinstance(method, ProfiledSettings):
        return
    short = f"profile {method.profile[:12]}"
    if found is None:
        raise Unfit("profile", f"there is no {short}…: `onward profiles list` shows those that are")
    if found.kind not in method.reads:
        reads = " or ".join(map(repr, method.reads))
        raise Unfit("profile", f"{short}… is of kind {found.kind!r}: this method reads {reads}")
    if found.base != base.fingerprint:
        raise Unfit("profile", f"{short}… was made for another base than {base.name}")
    if found.layout != layout:
        raise Unfit("profile", f"{short}… was made for an adapter of another rank, or on other modules")
