"""Points of a run as files: on disk they only save replaying. Knows a journal's rows; no method, no engine, no SQL."""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from db.contract.history import Restart
from db.contract.spec import JobSpec
from worker.runs.rebuilding import usable
from worker.runs.replay import Point
from worker.zo.method import State

log = structlog.get_logger("worker.adapters.snapshots")
KEPT = 2  # snapshots of a job
DIGITS = 9  # of a step in a file's name
MOST_HEADER = 64 << 20  # bytes: names, shapes and scalars; a truncation error a window is most of the largest
# What a file that is no snapshot, or a damaged one, is noticed by, whatever stands in it.
REFUSED = (
    OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError,
)  # fmt: skip
Tensors = dict[str, NDArray[Any]]


class Prefix:
    """The running SHA-256 of a spec, of the losses committed so far and of the restarts between them: what a snapshot
    belongs to."""

    def __init__(
        self, spec: JobSpec, journal: Sequence[Sequence[float]] = (), restarts: Sequence[Restart] = ()
    ) -> None:
        self._hash = hashlib.sha256(spec.model_dump_json().encode())
        back = {r.at: r for r in restarts}
        for step, losses in enumerate(journal, start=1):
            self.add(losses)
            if step in back:
                self.back(back[step])

    def add(self, losses: Sequence[float]) -> None:
        self._hash.update(np.asarray([len(losses), *losses], dtype="<f8").tobytes())

    def back(self, restart: Restart) -> None:
        self._hash.update(np.asarray([-1, restart.at, restart.origin], dtype="<f8").tobytes())  # no row is -1 long

    def hex(self) -> str:
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Snapshots:
    """A cache of points under `folder`, one folder a job. Losing, damaging or ageing it costs replaying only."""

    folder: Path

    def write(self, job_id: str, point: Point, prefix: str) -> None:
        """Keep `point`, reached by the journal with this prefix. Raises OSError, and leaves nothing half written."""
        data = encoded(point, prefix)
        own = self.folder / job_id
        own.mkdir(parents=True, exist_ok=True)
        scratch = own / f".{os.getpid()}"
        try:
            scratch.write_bytes(data)
            scratch.rename(own / f"{point.state.step:0{DIGITS}d}.safetensors")
        except OSError:
            scratch.unlink(missing_ok=True)
            raise
        for old in sorted(own.glob("*.safetensors"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def newest(
        self,
        job_id: str,
        spec: JobSpec,
        journal: Sequence[Sequence[float]],
        kind: type[State],
        restarts: Sequence[Restart] = (),
        upto: int | None = None,
    ) -> Point | None:
        """The furthest point that lies on this journal with these restarts, its state of this `kind`, none behind which
        a restart goes back and none after step `upto`; None where there is none that can be read and trusted."""
        for path in sorted((self.folder / job_id).glob(f"{'[0-9]' * DIGITS}.safetensors"), reverse=True):
            step = int(path.stem)
            if step > (len(journal) if upto is None else upto) or not usable(restarts, step):
                continue
            try:
                return _read(path, Prefix(spec, journal[:step], restarts).hex(), kind)
            except REFUSED as error:
                log.warning("snapshot ignored", job=job_id, step=step, error=str(error))
        return None

    def forget(self, job_id: str) -> None:
        shutil.rmtree(self.folder / job_id, ignore_errors=True)


def encoded(point: Point, prefix: str) -> bytes:
    """`point`, reached by what has this prefix, as one safetensors file.

    The state is written by its fields: scalars, arrays of any dtype, and tuples of these. Raises TypeError for others.
    """
    tensors: Tensors = {"params": point.params}
    state = {f.name: _packed(f.name, getattr(point.state, f.name), tensors) for f in fields(point.state)}
    about = json.dumps(state)
    return save(tensors, metadata={"state": about, "prefix": prefix, "sha256": _digest(about, tensors)})


def decoded(data: bytes, prefix: str, kind: type[State]) -> Point:
    """What `encoded` wrote with this prefix, its state of this `kind`. Raises one of REFUSED for anything else."""
    size = int.from_bytes(data[:8], "little")
    about = json.loads(data[8 : 8 + size])["__metadata__"]
    if about["prefix"] != prefix:
        raise ValueError("it belongs to another journal")
    return _whole(about, load(data), kind)


def _read(path: Path, prefix: str, kind: type[State]) -> Point:
    """The header says whose it is, and is read first: what is another's takes no memory."""
    _plain(path)
    with safe_open(path, framework="numpy") as file:
        about = file.metadata()
        if about["prefix"] != prefix:
            raise ValueError("it belongs to another journal")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return _whole(about, tensors, kind)


def _whole(about: Mapping[str, str], tensors: Tensors, kind: type[State]) -> Point:
    if about["sha256"] != _digest(about["state"], tensors):
        raise ValueError("its bytes have changed")
    kept = json.loads(about["state"])
    if set(kept) != {f.name for f in fields(kind)}:
        raise ValueError("its state has other fields")
    return Point(tensors["params"], kind(**{name: _unpacked(value, tensors) for name, value in kept.items()}))


def _plain(path: Path) -> None:
    """Raises ValueError for a link, a pipe, and a header that is longer than the file or than any we write."""
    about = path.lstat()
    if not stat.S_ISREG(about.st_mode) or path.parent.is_symlink():
        raise ValueError("it is no plain file of its job's folder")
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if header > min(MOST_HEADER, about.st_size):
        raise ValueError(f"its header is said to have {header} bytes")


def _packed(name: str, value: object, tensors: Tensors) -> object:
    """`value` as JSON has it; arrays go to `tensors` and leave their name there. Raises TypeError for anything else."""
    if isinstance(value, np.ndarray):
        tensors[f"state.{name}"] = value
        return {"tensor": f"state.{name}"}
    if isinstance(value, tuple):
        return [_packed(f"{name}.{i}", item, tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}: a state has scalars, arrays and tuples of them")


def _unpacked(value: Any, tensors: Tensors) -> Any:
    if isinstance(value, dict):
        return tensors[value["tensor"]]
    return tuple(_unpacked(item, tensors) for item in value) if isinstance(value, list) else value


def _digest(about: str, tensors: Tensors) -> str:
    """SHA-256 of the state's scalars and of every array as it is: name, dtype, shape and bytes."""
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        x = tensors[name]
        digest.update(f"{name} {x.dtype.str} {x.shape} ".encode() + x.tobytes())
    return digest.hexdigest()
