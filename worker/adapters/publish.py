"""A run's result as a PEFT directory, whole or not at all. Knows files; no engine, no SQL."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from db.worker.journal import Published
from worker.adapters import peft_files
from worker.runs import recipes
from worker.runs.replay import Point


def publish(folder: Path, job_id: str, name: str, spec: JobSpec, base: Base, point: Point) -> Published:
    """Write the PEFT directory `folder`/`job_id` whole or not at all, and say what was written.

    Files are written under a temporary name and synced, then the directory is renamed and its parent synced. The bytes
    are a function of the arguments, so a directory left by a publisher that died before its row is either equal, and
    kept, or replaced. Raises OSError.
    """
    layout = recipes.layout(spec, base)
    files = peft_files.directory(spec.adapter, layout, point.params, spec.model, name, spec.method.autograd)
    digest = peft_files.sha256(files[peft_files.WEIGHTS])
    target = folder / job_id
    if not _holds(target, files):
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{job_id}.", dir=folder))
        try:
            _fill(scratch, files)
            if target.is_symlink() or target.is_file():
                target.unlink()  # what it points at is not ours to remove
            shutil.rmtree(target, ignore_errors=True)
            scratch.rename(target)
        except OSError:
            shutil.rmtree(scratch, ignore_errors=True)  # on a full disk above all
            raise
        _sync(folder)
    return Published(
        name=name, step=point.state.step, sha256=digest, path=str(target.resolve()), tar=peft_files.tar(files)
    )


def _fill(scratch: Path, files: dict[str, bytes]) -> None:
    for file, data in files.items():
        with (scratch / file).open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
    scratch.chmod(0o755)
    _sync(scratch)


def _holds(target: Path, files: dict[str, bytes]) -> bool:
    try:
        return not target.is_symlink() and all(_is(target / name, data) for name, data in files.items())
    except OSError:
        return False


def _is(file: Path, data: bytes) -> bool:
    """Whether a plain file holds these bytes; one of another size, a link or a pipe is not read."""
    about = file.lstat()
    return stat.S_ISREG(about.st_mode) and about.st_size == len(data) and file.read_bytes() == data


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
