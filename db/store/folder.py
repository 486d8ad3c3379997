"""A folder as a store, local or shared by all who use it. Knows files and directories, no row.

Written by hand because what is answered with 2xx must outlast a power cut: data, then name, are synced.
"""

import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from db.store import seam
from db.store.seam import StoreAway


class Folder:
    """`root` exists: a folder that is missing is one that is not mounted, and is not made."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, pieces: Iterable[bytes]) -> None:
        with self._reached():
            target = self._root / key
            if target.parent != self._root:
                target.parent.mkdir(exist_ok=True)
            handle, scratch = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with open(handle, "wb") as out:
                for piece in pieces:
                    with self._reached():
                        out.write(piece)
                with self._reached():
                    out.flush()
                    os.fsync(out.fileno())
            with self._reached():
                os.replace(scratch, target)
                for folder in (target.parent, self._root):
                    _sync(folder)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise

    def read(self, key: str, start: int, length: int) -> bytes:
        with self._reached():
            try:
                # A link is not followed: what it points at was not put here.
                handle = os.open(self._root / key, os.O_RDONLY | os.O_NOFOLLOW)
            except FileNotFoundError:
                pass
            else:
                with open(handle, "rb") as found:
                    found.seek(start)
                    return found.read(length)
        raise seam.missing(self, key)

    def delete(self, key: str) -> None:
        with self._reached():
            target = self._root / key
            try:
                target.unlink()
            except FileNotFoundError:
                pass
            else:
                _sync(target.parent)
                return
        why = seam.missing(self, key)
        if isinstance(why, StoreAway):  # not mounted: it will be back, with the object
            raise why

    def keys(self, older: float) -> Iterator[str]:
        before = time.time() - older
        with self._reached():
            for tenant in os.scandir(self._root):
                if tenant.is_dir(follow_symlinks=False):
                    for entry in os.scandir(tenant.path):
                        if entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < before:
                            yield f"{tenant.name}/{entry.name}"

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreAway(f"the folder {self._root}: {error.strerror or error}") from None


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
