"""Points of a run kept on disk, which only save replaying. Knows a journal's losses; no engine, no SQL."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import structlog
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from db.contract.spec import JobSpec
from worker.runs.replay import Point
from worker.types import Params
from worker.zo.method import State

log = structlog.get_logger("worker.adapters.snapshots")
KEPT = 2  # snapshots of a job


class Prefix:
    """The running SHA-256 of a spec and the losses committed so far: what a snapshot belongs to."""

    def __init__(self, spec: JobSpec, journal: Sequence[Sequence[float]] = ()) -> None:
        self._hash = hashlib.sha256(spec.model_dump_json().encode())
        for losses in journal:
            self.add(losses)

    def add(self, losses: Sequence[float]) -> None:
        self._hash.update(np.asarray([len(losses), *losses], dtype="<f8").tobytes())

    def hex(self) -> str:
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Snapshots:
    """A cache of points under `folder`, one folder a job. Losing, damaging or ageing it costs replaying only."""

    folder: Path

    def write(self, job_id: str, point: Point, prefix: str) -> None:
        """Keep `point`, reached by the journal with this prefix. A disk that refuses is logged."""
        scalars = {k: v for k, v in vars(point.state).items() if k != "buffers"}
        tensors = {"params": point.params, **{f"buffer.{i}": b for i, b in enumerate(point.state.buffers)}}
        data = save(tensors, metadata={"state": json.dumps(scalars), "prefix": prefix, "sha256": _digest(tensors)})
        own = self.folder / job_id
        try:
            own.mkdir(parents=True, exist_ok=True)
            scratch = own / f".{os.getpid()}"
            scratch.write_bytes(data)
            scratch.rename(own / f"{point.state.step:09d}.safetensors")
            for old in sorted(own.glob("*.safetensors"))[:-KEPT]:
                old.unlink(missing_ok=True)
        except OSError as error:
            log.warning("no snapshot", job=job_id, error=str(error))

    def newest(self, job_id: str, spec: JobSpec, journal: Sequence[Sequence[float]]) -> Point | None:
        """The furthest point that lies on this journal; None where there is none that can be read and trusted."""
        for path in sorted((self.folder / job_id).glob("*.safetensors"), reverse=True):
            step = int(path.stem)
            if step > len(journal):
                continue
            try:
                return self._read(path, Prefix(spec, journal[:step]).hex())
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                log.warning("snapshot ignored", job=job_id, step=step, error=str(error))
        return None

    def forget(self, job_id: str) -> None:
        shutil.rmtree(self.folder / job_id, ignore_errors=True)

    @staticmethod
    def _read(path: Path, prefix: str) -> Point:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            about = file.metadata()
        if about["prefix"] != prefix:
            raise ValueError("it belongs to another journal")
        if about["sha256"] != _digest(tensors):
            raise ValueError("its bytes have changed")
        scalars = json.loads(about["state"])
        scalars["truncation"] = tuple(scalars["truncation"])
        buffers = tuple(tensors[f"buffer.{i}"] for i in range(len(tensors) - 1))
        return Point(tensors["params"], replace(State(**scalars), buffers=buffers))


def _digest(tensors: dict[str, Params]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
