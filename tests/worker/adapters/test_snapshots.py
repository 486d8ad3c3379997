"""A snapshot is only a cache: what it gives back is to the bit what replay gives, or it is not used."""

import hashlib
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.worker.adapters.published import base, journal, replay, spec
from worker.adapters.snapshots import Prefix, Snapshots
from worker.runs.replay import Point
from worker.types import Params
from worker.zo.methods import lozo, mezo

METHODS = {
    "mezo": {},
    "mezo-adam-one-sided": {"optimizer": "adam", "estimator": "one_sided", "queries": 3, "clip": 10.0},
    "lozo": {"name": "lozo", "nu": 5, "window_rank": 2, "optimizer": "momentum"},
    "lozo-recompress": {"name": "lozo", "nu": 4, "window_rank": 1, "refresh": "recompress"},
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return base("llama", tmp_path_factory.mktemp("bases"))


def plain(value: object) -> object:
    """A state, or a part of one, as something that == compares to the bit."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    return {k: plain(v) for k, v in vars(value).items()} if hasattr(value, "step") else value


def same(a: Point, b: Point) -> bool:
    return type(a.state) is type(b.state) and plain((a.params, a.state)) == plain((b.params, b.state))


def newest(snapshots: Snapshots, job, losses, kind=mezo.State) -> Point | None:
    return snapshots.newest("ftjob-a", job, losses, kind)


@pytest.mark.parametrize("method", METHODS)
def test_replay_from_a_snapshot_equals_replay_from_the_start(method, llama, tmp_path):
    job = spec(**METHODS[method])
    losses = journal(job, llama, 23)
    losses[7] = [float("nan")] * len(losses[7])  # a step left out is replayed as one left out
    whole = replay(job, llama, losses)
    assert whole.state.step == 23
    assert not np.array_equal(whole.params, replay(job, llama, losses[:22]).params)
    snapshots = Snapshots(tmp_path)
    snapshots.write("ftjob-a", replay(job, llama, losses[:11]), Prefix(job, losses[:11]).hex())
    found = newest(snapshots, job, losses, type(whole.state))
    assert found is not None
    assert found.state.step == 11
    assert same(replay(job, llama, losses, found), whole)


def test_a_prefix_grown_step_by_step_is_the_prefix_of_the_journal(llama):
    job = spec()
    losses = journal(job, llama, 5)
    grown = Prefix(job)
    for row in losses:
        grown.add(row)
    assert grown.hex() == Prefix(job, losses).hex()
    assert grown.hex() != Prefix(job, losses[:4]).hex()


def snapshot(llama, tmp_path):
    job = spec()
    losses = journal(job, llama, 6)
    snapshots = Snapshots(tmp_path)
    for step in (2, 4):
        snapshots.write("ftjob-a", replay(job, llama, losses[:step]), Prefix(job, losses[:step]).hex())
    return job, losses, snapshots


def test_a_damaged_snapshot_falls_back_to_an_older_one(llama, tmp_path):
    job, losses, snapshots = snapshot(llama, tmp_path)
    path = sorted((tmp_path / "ftjob-a").glob("*.safetensors"))[-1]
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    found = newest(snapshots, job, losses)
    assert found is not None
    assert found.state.step == 2
    path.write_bytes(b"no safetensors")
    assert newest(snapshots, job, losses).state.step == 2


def test_a_snapshot_of_another_journal_is_not_used(llama, tmp_path):
    job, losses, snapshots = snapshot(llama, tmp_path)
    other = [[x + 1e-9 for x in row] for row in losses]
    assert newest(snapshots, job, other) is None
    assert newest(snapshots, job.model_copy(update={"seed": 4}), losses) is None
    assert newest(snapshots, job, losses[:1]) is None


def test_a_folder_that_cannot_be_written_is_the_callers_to_know_and_costs_no_reader_anything(llama, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(OSError, match="file"):
        Snapshots(file).write("ftjob-a", replay(spec(), llama, []), "")
    assert newest(Snapshots(file), spec(), [[1.0, 1.0]]) is None


@dataclass(frozen=True)
class Newcomer:
    """A state such as a method of tomorrow may have: other shapes, other dtypes, nothing that a snapshot knows of."""

    step: int = 0
    skipped: int = 0
    nonfinite: int = 0
    scales: NDArray[np.float64] | None = None
    pools: tuple[NDArray[np.int8], ...] = ()
    history: tuple[tuple[float, ...], ...] = ()
    kept: bool = True
    phase: str = ""
    buffers: tuple[Params, ...] = ()


FULL = {
    "mezo": mezo.State(1, 2, 3, (np.arange(5, dtype=np.float32),)),
    "lozo": lozo.State(1, 2, 3, 4, (0.1, 1e-300), (np.arange(5, dtype=np.float32), np.zeros((2, 3), np.float32))),
    "newcomer": Newcomer(
        step=1, skipped=2**40, scales=np.array([1 / 3, np.inf, 1e-300]), pools=(np.int8([[1, -2]]), np.int8([])),
        history=((), (0.1, float("inf")), (-0.0,)), kept=False, phase="second",
    ),
    "empty": Newcomer(step=1),
}  # fmt: skip


@pytest.mark.parametrize("name", FULL)
def test_a_state_survives_a_snapshot_with_every_field_and_dtype(name, llama, tmp_path):
    full = Point(replay(spec(), llama, []).params, FULL[name])
    snapshots, losses = Snapshots(tmp_path), journal(spec(), llama, 1)
    snapshots.write("ftjob-a", full, Prefix(spec(), losses).hex())
    found = newest(snapshots, spec(), losses, type(full.state))
    assert found is not None
    assert same(found, full)


def test_a_state_that_is_no_plain_data_is_refused(llama, tmp_path):
    odd = Point(replay(spec(), llama, []).params, Newcomer(step=1, phase={"a": 1}))
    with pytest.raises(TypeError, match="phase is a dict"):
        Snapshots(tmp_path).write("ftjob-a", odd, "")


def test_a_snapshot_of_another_state_is_not_used(llama, tmp_path):
    """As after a release that gave the method another field: a default would not be what training had."""
    full = Point(replay(spec(), llama, []).params, FULL["mezo"])
    snapshots, losses = Snapshots(tmp_path), journal(spec(), llama, 1)
    snapshots.write("ftjob-a", full, Prefix(spec(), losses).hex())
    assert newest(snapshots, spec(), losses, lozo.State) is None
    assert newest(snapshots, spec(), losses, mezo.State) is not None


def test_a_snapshot_of_the_first_format_is_not_used(llama, tmp_path):
    """Scalars in one piece, buffers by number, a hash of float32 alone."""
    job, made = spec(), replay(spec(), llama, [])
    losses = journal(job, llama, 1)
    scalars = {"step": 1, "skipped": 0, "nonfinite": 0, "windows": 0, "truncation": []}
    sha256 = hashlib.sha256(b"params" + made.params.tobytes()).hexdigest()
    about = {"state": json.dumps(scalars), "prefix": Prefix(job, losses).hex(), "sha256": sha256}
    (tmp_path / "ftjob-a").mkdir()
    save_file({"params": made.params}, tmp_path / "ftjob-a" / "000000001.safetensors", metadata=about)
    assert newest(Snapshots(tmp_path), job, losses) is None


@pytest.mark.parametrize("part", ["scalar", "far below float32"])
def test_any_changed_bit_of_a_state_is_noticed(part, llama, tmp_path):
    full = Point(replay(spec(), llama, []).params, replace(FULL["newcomer"], scales=np.array([1.0, 2.0])))
    snapshots, losses = Snapshots(tmp_path), journal(spec(), llama, 1)
    snapshots.write("ftjob-a", full, Prefix(spec(), losses).hex())
    (path,) = (tmp_path / "ftjob-a").glob("*.safetensors")
    with safe_open(path, framework="numpy") as file:
        tensors, about = {k: file.get_tensor(k) for k in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors, path, metadata=about)
    assert newest(snapshots, spec(), losses, Newcomer) is not None
    if part == "scalar":
        about["state"] = about["state"].replace('"nonfinite": 0', '"nonfinite": 4')
    else:
        tensors["state.scales"][1] = np.nextafter(2.0, 3.0)
    save_file(tensors, path, metadata=about)
    assert newest(snapshots, spec(), losses, Newcomer) is None
