"""What a store of bytes does, whichever it is, and how it fails. Knows no database and no client.

A store keeps objects under generated keys. It never learns what a user calls a file, and lists are for sweeping only.
"""

import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

PART_BYTES: Final = 8 * 2**20  # of an upload in parts; what is not longer is sent at once
READ_BYTES: Final = 4 * 2**20  # of one read of a file that is handed on as it comes
MARK: Final = ".onward-store"  # the object that names the installation whose store this is
PROBE: Final = ".onward-probe"
KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,100}/[A-Za-z0-9_-]{1,100}")
OURS: Final = re.compile(r"[A-Za-z0-9_-]{1,100}/\.?(file-[a-z0-9]{24})(\.[A-Za-z0-9_-]+)?")  # the second: a temporary


class StoreAway(Exception):
    """The store cannot be used now, or is not the one that was meant: an outage, nobody's fault who asks.

    Its text is for operators, and holds no secret. `seconds` is when to try again.
    """

    def __init__(self, why: str, seconds: float = 5.0) -> None:
        super().__init__(why)
        self.seconds = seconds


class ObjectLost(LookupError):
    """The store answers, and does not have the object, or has other bytes than were put."""


class Store(Protocol):
    """Objects by key. Every method raises StoreAway; sizes and ranges are in bytes, ages in seconds."""

    def put(self, key: str, pieces: Iterable[bytes]) -> None:
        """All of `pieces` under `key`, whole or not at all, and durable on return. Holds few of them in memory."""

    def read(self, key: str, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start`, none past the end. Raises ObjectLost."""

    def delete(self, key: str) -> None:
        """Gone on return; one that is not there is no error."""

    def keys(self, older: float) -> Iterator[str]:
        """The keys last written more than `older` seconds ago, temporary ones of a killed writer among them."""


def key(tenant: str, file_id: str) -> str:
    """Where the tenant's file lies in any store. Raises ValueError for what no id of ours looks like."""
    made = f"{tenant}/{file_id}"
    if KEY.fullmatch(made) is None:
        raise ValueError("no key can be made of these ids")
    return made


def whole(store: Store, key: str, size: int) -> Iterator[bytes]:
    """The object of `size` bytes, piece by piece. Raises ObjectLost, also where it is shorter."""
    start = 0
    while start < size:
        piece = store.read(key, start, min(READ_BYTES, size - start))
        if not piece:
            raise ObjectLost(f"{key} has {start} of {size} bytes")
        yield piece
        start += len(piece)


def mark(store: Store, installation: str) -> None:
    """Makes the store this installation's, where it is nobody's. Raises StoreAway where it is another's: it was mounted
    or named by mistake, and a sweep of either would take the other's files for its own orphans."""
    found = _marked(store)
    if found is None:
        store.put(MARK, [installation.encode()])
        found = _marked(store)
    if found != installation:
        raise StoreAway("it is the store of another installation (its .onward-store says so)")


def missing(store: Store, key: str) -> Exception:
    """What it means that `key` is not there: ObjectLost, or StoreAway where the store has no mark of ours either."""
    if key != MARK and _marked(store) is None:
        return StoreAway("it has no .onward-store: is it mounted, and is it the right bucket?")
    return ObjectLost(f"{key} is not in its store")


def probe(store: Store) -> None:
    """Writes, reads and deletes a few bytes. Raises StoreAway."""
    name, said = f"{PROBE}/{secrets.token_hex(8)}", b"onward"
    store.put(name, [said])
    try:
        heard = store.read(name, 0, len(said))
    except ObjectLost:
        heard = b""
    store.delete(name)
    if heard != said:
        raise StoreAway("it does not give back what was written")


def _marked(store: Store) -> str | None:
    try:
        return store.read(MARK, 0, 200).decode("utf-8", "replace")
    except ObjectLost:
        return None
