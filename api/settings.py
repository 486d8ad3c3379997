"""Settings of the API process: what every process shares, and where to listen. Knows no request."""

import ipaddress
from functools import lru_cache

from pydantic import Field, field_validator

from db.contract.receipts.signing import public_keys
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
    max_requests: int = Field(default=512, ge=1)  # under way at one time; probes are not counted
    max_requests_of_tenant: int = Field(default=64, ge=1)
    max_connections: int = Field(default=800, ge=1)
    max_connections_of_address: int = Field(default=400, ge=1)  # a trusted proxy has no such limit
    head_seconds: float = Field(default=5.0, gt=0)  # from a connection, or a request's first byte, to its head's last
    body_idle_seconds: float = Field(default=15.0, gt=0)  # of a body without a byte
    min_body_rate: int = Field(default=1024, ge=0)  # bytes a second of a body, after `body_idle_seconds`
    unread_seconds: float = Field(default=60.0, gt=0)  # that a client may leave an answer unread
    keep_alive_seconds: float = Field(default=5.0, gt=0)  # of a connection between requests
    trusted_proxies: str = ""  # whose X-Forwarded-For is believed: addresses and networks, commas between; * is all
    requests_a_minute: int = Field(default=12_000, ge=0)  # of a tenant; 0, here and below: no limit
    jobs_a_minute: int = Field(default=3_000, ge=0)  # that a tenant asks for
    upload_bytes_a_minute: int = Field(default=4 << 30, ge=0)  # of a tenant
    wrong_keys_a_minute: int = Field(default=600, ge=0)  # of an address
    serve_tokens_a_minute: int = Field(default=0, ge=0)  # of a tenant: prompts, and the most their answers may have
    serve_connect_seconds: float = Field(default=1.0, gt=0)  # that a worker has to take a connection
    serve_patience_seconds: float = Field(
        default=5.0, gt=0
    )  # without a byte, after which a worker is asked if it lives
    serve_seconds: float = Field(default=600.0, gt=0)  # from a chat's arrival to its answer's last byte
    serve_memory_seconds: float = Field(default=300.0, ge=0)  # that keys and names are known without the database
    serve_usage_seconds: float = Field(default=1.0, gt=0)  # between writings of what was served
    restore_wait_seconds: float = Field(default=10.0, ge=0, le=60)  # that a request waits for a step to be rebuilt
    rate_retry_seconds: float = Field(default=10.0, gt=0)  # a Valkey that does not count is left alone for so long
    # Scored tokens of one step (probes x rows), and of one evaluation: what a job may take before others have a turn.
    max_step_tokens: int = Field(default=262_144, ge=1)
    token_cache_files: int = Field(default=256, ge=1)  # (file, model, invocation): counts in memory
    # Files up to this size are counted inside of the request that makes a job of them; larger ones outside, durably.
    count_inside_bytes: int = Field(default=256 << 10, ge=0)
    counts_outside: int = Field(default=4, ge=1)  # jobs whose files one process counts outside of requests at one time
    count_threads: int = Field(default=1, ge=1)  # that count tokens, for all tenants in turn
    count_waiting: int = Field(default=48, ge=1)  # requests of a tenant that wait for counts at one time
    receipt_signers: str = ""  # of whose signatures on receipts are this installation's: hex, commas between them
    counts_at_once: int = Field(default=16, ge=1)  # files that are being counted, which bounds memory

    @field_validator("receipt_signers")
    @classmethod
    def _keys(cls, listed: str) -> str:
        return ",".join(public_keys(listed))

    @field_validator("trusted_proxies")
    @classmethod
    def _named(cls, trusted: str) -> str:
        networks(trusted)
        return trusted


def networks(trusted: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Addresses and networks, separated by commas; `*` is all of them. Raises ValueError."""
    named = [part.strip() for part in trusted.split(",") if part.strip()]
    if "*" in named:
        named = ["0.0.0.0/0", "::/0"]
    return tuple(ipaddress.ip_network(part) for part in named)


@lru_cache
def get_settings() -> Settings:
    return Settings()
