"""What is built, as data: files, targets, names, locks and the sizes aimed at."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from db.telemetry.version import VERSION

ROOT: Final = Path(__file__).parents[2]
BASE: Final = "docker.io/library/python:3.11-slim-bookworm"
# What that image holds unpacked, as its publisher pushes it: bytes. The aims below are for an image on it.
BASE_BYTES: Final = 130e6


@dataclass(frozen=True)
class Target:
    """`most` are the bytes aimed at, on a base of BASE_BYTES; None where no aim is set."""

    name: str
    file: str
    target: str
    tag: str
    locks: tuple[str, ...]
    most: float | None

    @property
    def image(self) -> str:
        """Whole, so that no engine asks which registry a short name means: Compose's and the chart's short names are
        this one's."""
        return f"docker.io/onward/{self.tag}"


TARGETS: Final = (
    Target("api", "api/Dockerfile", "api", f"api:{VERSION}", ("api.lock",), 400e6),
    Target("worker", "worker/Dockerfile", "cpu", f"worker:{VERSION}-cpu", ("torch.lock", "worker.lock"), 2.5e9),
    Target("worker-cuda", "worker/Dockerfile", "cuda", f"worker:{VERSION}-cuda", ("cuda.lock",), None),
)
USUAL: Final = ("api", "worker")  # gigabytes of CUDA libraries only where they are asked for
