"""What a worker process may be told from outside. Knows environment variables, no engine and no SQL."""

from functools import lru_cache
from typing import Literal

from pydantic import Field, SecretStr

from db.settings import Settings


class WorkerSettings(Settings):
    """`ONWARD_<FIELD>` sets a field. Times are seconds, sizes tokens or counts.

    `scorer` torch is the oracle on its own queue: transformers and PEFT, slow and plain. `threads` 0 leaves the
    number of compute threads to the engine; `worker_metrics_port` 0 serves neither metrics nor health. `prompt_bytes`
    bounds the keys and values that jobs of activation `answer` keep of their prompts. A step that takes longer than
    `stuck_seconds` makes the worker unhealthy. One that is out of service for its disk tries it every `disk_seconds`.
    """

    model: str = Field(min_length=1)
    scorer: Literal["vllm", "torch"] = "vllm"
    dtype: str = "float32"
    threads: int = Field(default=0, ge=0)
    slots: int = Field(default=64, ge=1)
    prompt_bytes: int = Field(default=2 << 30, ge=1 << 20)
    max_tokens: int = Field(default=4096, ge=1)
    cohort: int = Field(default=8, ge=1)
    residents: int = Field(default=32, ge=1)
    wish_seconds: float = Field(default=0.5, gt=0)
    snapshot_steps: int = Field(default=500, ge=1)
    worker_metrics_port: int = Field(default=0, ge=0, le=65535)
    self_check: bool = True
    canary_seconds: float = Field(default=60.0, gt=0)
    stuck_seconds: float = Field(default=900.0, gt=0)
    disk_seconds: float = Field(default=10.0, gt=0)
    receipt_key: SecretStr | None = None  # what receipts are signed with: 64 hexadecimal digits; none: they are not


@lru_cache
def get_worker_settings() -> WorkerSettings:
    """Read once for the process; raises pydantic.ValidationError naming what is missing or wrong."""
    return WorkerSettings()  # the environment gives `model`
