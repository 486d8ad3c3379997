"""Settings of methods that read a profile: a file made once for a base and named by its hash. Knows no file."""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from db.contract.methods.base import MethodSettings

ProfileKind = Literal["factors", "mask", "basis", "mlp"]
ProfileHash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
MAKES: Final = "a profile (onward profiles)"


class ProfiledSettings(MethodSettings):
    """`profile` is the SHA-256 (hex) of the profile's file, one of the `reads` kinds. It is a part of the spec, so what
    is rebuilt from a journal is rebuilt from the same file."""

    reads: ClassVar[tuple[ProfileKind, ...]]
    profile: ProfileHash


def profile_of(method: MethodSettings) -> str | None:
    """The hash of the profile that a job with these settings reads, None for one that reads none."""
    return method.profile if isinstance(method, ProfiledSettings) else None
