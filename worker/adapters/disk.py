"""Whether a worker's disk takes what is written to it, and what a killed worker left on it. Knows no job's state."""

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

TRIED = 1 << 20  # bytes


def try_out(home: Path) -> None:
    """Write a mebibyte to each folder that results go to, as results are written, and take it away. Raises OSError."""
    for folder in (home / "adapters", home / "snapshots"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as out:  # without a name: nothing is left by whoever is killed here
            out.write(bytes(TRIED))
            out.flush()
            os.fsync(out.fileno())


def reap(home: Path, unheld: Callable[[Collection[str]], Collection[str]]) -> int:
    """Remove the temporary folders and files of jobs that `unheld` says no one holds; how many there were.

    They are what was being written when a worker was killed: a holder may be at work on its own.
    """
    found = list(_left(home))
    free = set(unheld({job_id for job_id, _ in found})) if found else set()
    gone = [path for job_id, path in found if job_id in free]
    for path in gone:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(gone)


def _left(home: Path) -> Iterator[tuple[str, Path]]:
    """Job and path of everything with a temporary name: adapters/.<job>.<random>, snapshots/<job>/.<pid>."""
    for path in (home / "adapters").glob(".*.*"):
        yield path.name[1:].partition(".")[0], path
    for path in (home / "snapshots").glob("*/.*"):
        yield path.parent.name, path
