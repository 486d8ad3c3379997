"""A bucket of an S3-compatible store, through obstore (one Rust wheel). Knows its client's errors, no row."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import S3Store

from db.hidden import redacted
from db.settings import Settings
from db.store import seam
from db.store.seam import PART_BYTES, StoreAway

PAST_THE_END = "416 Range Not Satisfiable"
SAID = 300  # characters of what the store answered
PARTS_AT_ONCE = 2  # with PART_BYTES, the most of an upload in memory


class Bucket:
    """`url` is s3://bucket/prefix. Without keys in the settings, those that AWS's clients find: AWS_* variables, a web
    identity, the machine's role."""

    def __init__(self, url: str, settings: Settings) -> None:
        parts = urlsplit(url)
        prefix = parts.path.strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        options: dict[str, Any] = {"region": settings.s3_region}
        if settings.s3_endpoint is not None:
            options["endpoint"] = "".join(settings.s3_endpoint).rstrip("/")  # whole: its str may hide a part
        for name in ("access_key_id", "secret_access_key"):
            secret = getattr(settings, f"s3_{name}")
            if secret is not None:
                options[name] = secret.get_secret_value().rstrip("\r\n")
        self._store = S3Store(
            parts.netloc,
            prefix=prefix or None,
            client_options={
                "allow_http": str(options.get("endpoint", "")).startswith("http://"),
                "connect_timeout": timedelta(seconds=5),
                "timeout": timedelta(seconds=settings.store_seconds),
            },
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=settings.store_seconds)},
            **options,
        )

    def put(self, key: str, pieces: Iterable[bytes]) -> None:
        rest = iter(pieces)
        first = bytearray()
        for piece in rest:
            first += piece
            if len(first) > PART_BYTES:
                break
        with self._reached():
            if len(first) <= PART_BYTES:
                self._store.put(key, bytes(first), use_multipart=False)
                return
            parts = chain([bytes(first)], rest)
            self._store.put(key, parts, use_multipart=True, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    def read(self, key: str, start: int, length: int) -> bytes:
        with self._reached():
            try:
                return bytes(self._store.get_range(key, start=start, length=length))
            except FileNotFoundError:
                pass
            except BaseError as error:
                if PAST_THE_END not in str(error):
                    raise
                return b""
        raise seam.missing(self, key)

    def delete(self, key: str) -> None:
        with self._reached():
            self._store.delete(key)

    def keys(self, older: float) -> Iterator[str]:
        before = datetime.now(UTC) - timedelta(seconds=older)
        with self._reached():
            for found in self._store.list():
                for one in found:
                    if one["last_modified"] < before:
                        yield one["path"]

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """The client's errors go into pages of its own state: the first line says what happened."""
        try:
            yield
        except (BaseError, FileNotFoundError) as error:  # the second of a bucket: an object's is caught before
            raise StoreAway(_said(error)) from None


def _said(error: Exception) -> str:
    return redacted(str(error).partition("\n")[0])[:SAID]
