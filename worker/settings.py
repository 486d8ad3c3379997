"""What a worker process may be told from outside. Knows environment variables, no engine and no SQL."""

from functools import lru_cache
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from db.settings import Settings


class WorkerSettings(Settings):
    """`ONWARD_<FIELD>` sets a field. Times are seconds, sizes tokens or counts.

    `scorer` torch is the oracle on its own queue: transformers and PEFT, slow and plain. `threads` 0 leaves the
    number of compute threads to the engine; `worker_metrics_port` 0 serves neither metrics nor health. `prompt_bytes`
    bounds the keys and values that jobs of activation `answer` keep of their prompts. A step that takes longer than
    `stuck_seconds` makes the worker unhealthy. One that is out of service for its disk tries it every `disk_seconds`.
    Of a run whose journal is not enough a point is kept every `point_steps` at least. With `only_autograd` a worker
    takes jobs that need derivatives alone: it stands beside an engine.

    With `serve_secret` a worker answers chats of the API on `serve_port` (0: any free one), which dials it by
    `serve_address` (empty: this host's name). At most `serve_queue_tokens` tokens of requests wait; at its end running
    answers have `serve_drain_seconds`. `serve_tool_parser` is vLLM's name of what reads the base's calls of tools;
    empty, it is asked for none. Requests wear `serve_slots` adapters at one time, and of those that they have worn
    `serve_adapter_bytes` are kept in memory; `serve_tokens` of theirs go into one step, and keys and values of
    `serve_cache_tokens`, of one context at least, are kept; with `serve_graphs` (for GPUs) they are decoded in CUDA
    graphs by vLLM's own LoRA kernels. Serving goes before training, which has `train_share_min`
    of the engine's time where both want it.
    """

    model: str = Field(min_length=1)
    scorer: Literal["vllm", "torch"] = "vllm"
    dtype: str = "float32"
    threads: int = Field(default=0, ge=0)
    slots: int = Field(default=64, ge=1)
    prompt_bytes: int = Field(default=2 << 30, ge=1 << 20)
    max_tokens: int = Field(default=4096, ge=1)
    serve_slots: int = Field(default=4, ge=1)
    serve_adapter_bytes: int = Field(default=256 << 20, ge=0)
    serve_tokens: int = Field(default=256, ge=1)
    serve_cache_tokens: int = Field(default=16384, ge=0)
    serve_graphs: bool = False
    train_share_min: float = Field(default=0.0, ge=0, lt=1)
    cohort: int = Field(default=8, ge=1)
    residents: int = Field(default=32, ge=1)
    wish_seconds: float = Field(default=0.5, gt=0)
    snapshot_steps: int = Field(default=500, ge=1)
    point_steps: int = Field(default=50, ge=1)
    only_autograd: bool = False
    worker_metrics_port: int = Field(default=0, ge=0, le=65535)
    self_check: bool = True
    canary_seconds: float = Field(default=60.0, gt=0)
    stuck_seconds: float = Field(default=900.0, gt=0)
    disk_seconds: float = Field(default=10.0, gt=0)
    serve_port: int = Field(default=0, ge=0, le=65535)
    serve_address: str = ""
    serve_queue_tokens: int = Field(default=32_768, ge=1)
    serve_drain_seconds: float = Field(default=20.0, ge=0)
    serve_tool_parser: str = ""
    receipt_key: SecretStr | None = None  # what receipts are signed with: 64 hexadecimal digits; none: they are not

    @property
    def takes(self) -> Literal["forward", "autograd", "all"]:
        """Which jobs a worker with these settings takes: its scorer has derivatives, or forward passes alone."""
        if self.scorer == "torch":
            return "autograd" if self.only_autograd else "all"
        return "forward"

    @model_validator(mode="after")
    def _has_derivatives(self) -> Self:
        if self.only_autograd and self.scorer != "torch":
            raise ValueError("only_autograd needs the scorer torch: no other has derivatives")
        return self


@lru_cache
def get_worker_settings() -> WorkerSettings:
    """Read once for the process; raises pydantic.ValidationError naming what is missing or wrong."""
    return WorkerSettings()  # the environment gives `model`
