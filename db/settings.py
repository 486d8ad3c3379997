"""Settings that api, worker and cli share, from ONWARD_* variables or files. Opens no connection."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote, urlunsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from db import hidden

MIB = 2**20
SECRET_CHARS = 16
DATABASE_URL = "postgresql+psycopg://onward@127.0.0.1:5432/onward"
REDIS_URL = "redis://127.0.0.1:6379/0"


class Settings(BaseSettings):
    """Frozen. Durations are seconds, sizes bytes; `models` maps a public name to a folder or a hub id (JSON).

    A file `onward_<field>` in the folder that ONWARD_SECRETS_DIR names sets a field that no variable sets. The
    passwords go into the URLs that carry none, so that a URL can be public and its password a mounted secret.
    No text shows a secret: a field that holds one is a `SecretStr`, a URL that may a `hidden.Url`.
    """

    model_config = SettingsConfigDict(env_prefix="ONWARD_", frozen=True, extra="ignore", hide_input_in_errors=True)

    database_url: hidden.Url = DATABASE_URL
    redis_url: hidden.Url = REDIS_URL  # redis-py's forms: redis://, rediss://, unix:///path.sock?db=0
    database_password: SecretStr | None = None
    redis_password: SecretStr | None = None
    api_database_password: SecretStr | None = None  # these two are for `onward migrate`: it gives the roles
    worker_database_password: SecretStr | None = None  # onward_api and onward_worker their passwords
    serve_secret: SecretStr | None = None  # what the API shows workers, for chats; none: nothing is served
    log_format: Literal["auto", "json", "console"] = "auto"  # auto: for people on a terminal, JSON elsewhere
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    home: Path = Path(".onward")
    models: dict[str, str] = {}

    lease_seconds: float = Field(default=15.0, gt=0)  # a lease not renewed for so long may be taken over
    slice_seconds: float = Field(default=3.0, gt=0)
    sweep_seconds: float = Field(default=5.0, gt=0)
    heartbeat_seconds: float = Field(default=2.0, gt=0)
    flush_seconds: float = Field(default=1.0, gt=0)  # how old an uncommitted step may grow
    max_attempts: int = Field(default=5, ge=1)  # workers that died of a job, alone with it: then it is `poison`
    deaths_seconds: float = Field(default=86400.0, gt=0)  # how long a death is held against a job

    audit_days: float = Field(default=0.0, ge=0, le=36_500)  # how long audit entries are kept; 0: for ever

    # Days for which what is over is kept; 0 is for ever. The journal of a published adapter is its receipt and stays.
    keep_events_days: float = Field(default=90.0, ge=0)  # of ended jobs
    keep_journal_days: float = Field(default=90.0, ge=0)  # journal and evaluations of ended jobs without an adapter
    keep_usage_days: float = Field(default=400.0, ge=0)  # scored tokens of a tenant a day
    keep_workers_days: float = Field(default=7.0, ge=0)  # rows of workers since they were last heard of

    # Where the bytes of new files go: the database, a folder (file:///srv/onward), a bucket (s3://bucket/prefix).
    file_store: str = "database"
    s3_endpoint: hidden.Url | None = None  # of a store that is not AWS's, such as https://minio.example:9000
    s3_region: str = "us-east-1"
    s3_access_key_id: SecretStr | None = None  # without the two: as AWS's clients find them
    s3_secret_access_key: SecretStr | None = None
    store_seconds: float = Field(default=30.0, gt=0)  # the most that one request to a bucket takes
    store_retry_seconds: float = Field(default=5.0, ge=0)  # a store that does not answer is left alone for so long
    orphan_hours: float = Field(default=24.0, gt=0)  # after which an object that no file names goes

    max_file_bytes: int = Field(default=512 * MIB, ge=1)
    max_line_bytes: int = Field(default=MIB, ge=1)
    max_rows: int = Field(default=1_000_000, ge=1)
    max_choices: int = Field(default=64, ge=2)
    max_steps: int = Field(default=1_000_000, ge=1)
    max_batch_size: int = Field(default=1024, ge=1)
    max_rank: int = Field(default=64, ge=1)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Files are read from the folder that is named now, not when this module was imported."""
        del dotenv_settings, file_secret_settings
        folder = os.environ.get("ONWARD_SECRETS_DIR")
        return init_settings, env_settings, *([SecretsSettingsSource(settings_cls, folder)] if folder else [])

    @field_validator("file_store")
    @classmethod
    def _a_store(cls, named: str) -> str:
        """One spelling for each, as rows keep it. What is not right is not repeated: it may hold a secret."""
        if named == "database":
            return named
        parts = hidden.split(named)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("credentials and options have settings of their own: ONWARD_S3_ACCESS_KEY_ID and others")
        path = parts.path.rstrip("/")
        if ".." in path.split("/") or "//" in path:
            raise ValueError("its path is to be plain")
        if (parts.scheme, parts.netloc) == ("file", "") and path:
            return f"file://{path}"
        if parts.scheme == "s3" and parts.netloc:
            return f"s3://{parts.netloc}{path}"
        raise ValueError("it is database, file:///an/absolute/folder or s3://bucket/prefix")

    @field_validator("serve_secret")
    @classmethod
    def _no_secret_is_none(cls, given: SecretStr | None) -> SecretStr | None:
        """A file's last newline is no part of it, and an empty file is none."""
        plain = "" if given is None else given.get_secret_value().strip()
        if plain and (len(plain) < SECRET_CHARS or not plain.isascii()):
            raise ValueError(f"it is {SECRET_CHARS} characters at least, such as `openssl rand -hex 32` makes")
        return SecretStr(plain) if plain else None

    @model_validator(mode="before")
    @classmethod
    def _complete_urls(cls, given: dict[str, Any]) -> dict[str, Any]:
        for url, default in (("database", DATABASE_URL), ("redis", REDIS_URL)):
            secret = given.get(f"{url}_password")
            if secret is not None:
                plain = secret.get_secret_value() if isinstance(secret, SecretStr) else str(secret)
                given[f"{url}_url"] = with_password(given.get(f"{url}_url", default), plain)
        return given

    @model_validator(mode="after")
    def _remember(self) -> Self:
        for name in type(self).model_fields:
            hidden.remember(getattr(self, name))
        return self


def with_password(url: str, password: str) -> str:
    """`url` with `password`, percent-encoded, where it has none. A file's last newline is not part of a password."""
    parts = hidden.split(url)
    password = password.rstrip("\r\n")
    if parts.password is not None or not password:
        return url
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user if at else ''}:{quote(password, safe='')}@{host}"))


@lru_cache
def get_settings() -> Settings:
    """This process's settings, read once."""
    return Settings()
