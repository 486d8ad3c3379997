"""Settings of the API process: what every process shares, and where to listen. Knows no request."""

from functools import lru_cache

from pydantic import Field

from db.settings import Settings as Shared


class Settings(Shared):
    """Read from `ONWARD_…` environment variables, like what it extends. Frozen.

    Told to end, the API goes on for `drain_seconds` but says on every answer that its connection ends: clients that
    keep connections open then come back on new ones, which go to other processes, instead of finding theirs cut.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)  # 0 lets the system choose
    api_metrics_port: int = Field(default=0, ge=0, le=65535)  # 0: /metrics among the other routes
    drain_seconds: float = Field(default=2.0, ge=0)
    max_request_bytes: int = Field(default=1 << 20, ge=1)  # a JSON body; files have `max_file_bytes`
    # Scored tokens of one step (probes x rows), and of one evaluation: what a job may take before others have a turn.
    max_step_tokens: int = Field(default=262_144, ge=1)
    token_cache_files: int = Field(default=256, ge=1)  # (file, model, invocation): counts in memory


@lru_cache
def get_settings() -> Settings:
    return Settings()
