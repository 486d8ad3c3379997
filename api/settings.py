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
    max_tenant_bytes: int = Field(default=64 << 30, ge=0)  # files and results of a tenant without a limit of its own
    token_cache_files: int = Field(default=256, ge=1)  # (file, model, invocation): counts in memory
    count_threads: int = Field(default=1, ge=1)  # that count tokens, for all tenants in turn
    count_waiting: int = Field(default=64, ge=1)  # requests of a tenant that wait for counts at one time
    counts_at_once: int = Field(default=16, ge=1)  # files that are being counted, which bounds memory


@lru_cache
def get_settings() -> Settings:
    return Settings()
