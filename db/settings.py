"""Settings that api, worker and cli share, read from ONWARD_* variables. Knows no process and opens no connection."""

from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 2**20


class Settings(BaseSettings):
    """Frozen. Durations are seconds, sizes bytes; `models` maps a public name to a folder or a hub id (JSON)."""

    model_config = SettingsConfigDict(env_prefix="ONWARD_", frozen=True, extra="ignore")

    database_url: str = "postgresql+psycopg://onward@127.0.0.1:5432/onward"
    redis_url: str = "redis://127.0.0.1:6379/0"  # redis-py's forms: redis://, rediss://, unix:///path.sock?db=0
    home: Path = Path(".onward")
    models: dict[str, str] = {}

    lease_seconds: float = Field(default=15.0, gt=0)  # a lease not renewed for so long may be taken over
    slice_seconds: float = Field(default=3.0, gt=0)
    sweep_seconds: float = Field(default=5.0, gt=0)
    heartbeat_seconds: float = Field(default=2.0, gt=0)
    flush_seconds: float = Field(default=1.0, gt=0)  # how old an uncommitted step may grow
    max_attempts: int = Field(default=5, ge=1)  # claims in a row without one committed step: then `poison`

    max_file_bytes: int = Field(default=512 * MIB, ge=1)
    max_line_bytes: int = Field(default=MIB, ge=1)
    max_rows: int = Field(default=1_000_000, ge=1)
    max_choices: int = Field(default=64, ge=2)
    max_steps: int = Field(default=1_000_000, ge=1)
    max_batch_size: int = Field(default=1024, ge=1)
    max_rank: int = Field(default=64, ge=1)


@lru_cache
def get_settings() -> Settings:
    """This process's settings, read once."""
    return Settings()
