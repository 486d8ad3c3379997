"""Replay equals training, a snapshot is only a cache, a published directory is whole: equal adapters, equal bytes."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from db.ids import adapter_name
from tests.worker.adapters.published import base, journal, spec
from worker.adapters.publish import publish
from worker.adapters.snapshots import Prefix, Snapshots
from worker.runs import recipes
from worker.runs.replay import Point, replay
from worker.zo.method import State

METHODS = {
    "mezo": {},
    "mezo-adam-one-sided": {"optimizer": "adam", "estimator": "one_sided", "queries": 3, "clip": 10.0},
    "lozo": {"name": "lozo", "nu": 5, "window_rank": 2, "optimizer": "momentum"},
    "lozo-recompress": {"name": "lozo", "nu": 4, "window_rank": 1, "refresh": "recompress"},
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return base("llama", tmp_path_factory.mktemp("bases"))


def same(a: Point, b: Point) -> bool:
    scalars = {k: v for k, v in vars(a.state).items() if k != "buffers"}
    return (
        np.array_equal(a.params, b.params)
        and scalars == {k: v for k, v in vars(b.state).items() if k != "buffers"}
        and all(np.array_equal(x, y) for x, y in zip(a.state.buffers, b.state.buffers, strict=True))
    )


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
    found = snapshots.newest("ftjob-a", job, losses)
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
    newest = sorted((tmp_path / "ftjob-a").glob("*.safetensors"))[-1]
    damaged = bytearray(newest.read_bytes())
    damaged[-1] ^= 1
    newest.write_bytes(damaged)
    found = snapshots.newest("ftjob-a", job, losses)
    assert found is not None
    assert found.state.step == 2
    newest.write_bytes(b"no safetensors")
    assert snapshots.newest("ftjob-a", job, losses).state.step == 2


def test_a_snapshot_of_another_journal_is_not_used(llama, tmp_path):
    job, losses, snapshots = snapshot(llama, tmp_path)
    other = [[x + 1e-9 for x in row] for row in losses]
    assert snapshots.newest("ftjob-a", job, other) is None
    assert snapshots.newest("ftjob-a", job.model_copy(update={"seed": 4}), losses) is None
    assert snapshots.newest("ftjob-a", job, losses[:1]) is None


def test_a_folder_that_cannot_be_written_costs_nothing(llama, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    Snapshots(file).write("ftjob-a", replay(spec(), llama, []), "")
    assert Snapshots(file).newest("ftjob-a", spec(), [[1.0, 1.0]]) is None


def point(llama) -> Point:
    job = spec()
    return replay(job, llama, journal(job, llama, 3))


def test_the_published_directory_is_a_peft_adapter(llama, tmp_path):
    job, made = spec(), point(llama)
    name = adapter_name(job.model, "ten_abc", job.suffix, "ftjob-xyz")
    published = publish(tmp_path, "ftjob-xyz", name, job, llama, made)
    folder = Path(published.path)
    assert published.name == "ft:tiny-llama:abc::xyz"
    assert published.step == 3
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ftjob-xyz"]  # nothing temporary is left
    data = (folder / "adapter_model.safetensors").read_bytes()
    assert published.sha256 == hashlib.sha256(data).hexdigest()
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["r"] == 4
    assert config["lora_alpha"] == 8
    assert config["target_modules"] == ["q_proj", "v_proj"]
    tensors = load_file(folder / "adapter_model.safetensors")
    layout = recipes.layout(job, llama)
    assert len(tensors) == 2 * len(layout.modules)
    for module, a, b in layout.pairs(made.params):
        assert np.array_equal(tensors[f"base_model.model.{module.name}.lora_A.weight"], a)
        assert np.array_equal(tensors[f"base_model.model.{module.name}.lora_B.weight"], b)
    with tarfile.open(fileobj=io.BytesIO(published.tar)) as archive:
        packed = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}
        assert {(m.uid, m.gid, m.mtime, m.mode) for m in archive.getmembers()} == {(0, 0, 0, 0o644)}
    assert packed == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_publishing_again_gives_the_same_and_repairs_what_is_broken(llama, tmp_path):
    first = publish(tmp_path, "ftjob-xyz", "n", spec(), llama, point(llama))
    inode = os.stat(first.path).st_ino
    assert publish(tmp_path, "ftjob-xyz", "n", spec(), llama, point(llama)) == first
    assert os.stat(first.path).st_ino == inode
    weights = Path(first.path) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert publish(tmp_path, "ftjob-xyz", "n", spec(), llama, point(llama)) == first
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == first.sha256


def test_another_process_replays_to_the_same_hash(llama, tmp_path):
    job = spec(optimizer="adam")
    losses = journal(job, llama, 12)
    published = publish(tmp_path, "ftjob-a", "n", job, llama, replay(job, llama, losses))
    code = f"""
from db.contract.tokens.base_model import open_base
from db.contract.spec import JobSpec
from worker.adapters import peft_files
from worker.runs import recipes
from worker.runs.replay import replay
import sys
job = JobSpec.model_validate_json({job.model_dump_json()!r})
base = open_base({llama.name!r}, {llama.source!r})
made = replay(job, base, {losses!r})
print(peft_files.sha256(peft_files.weights(recipes.layout(job, base), made.params)))
assert not {{"torch", "vllm", "transformers"}} & set(sys.modules), "a replay needs no engine"
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert out.stdout.strip() == published.sha256


def test_state_survives_a_snapshot_with_every_field(llama, tmp_path):
    made = replay(spec(), llama, [])
    buffers = (np.arange(made.params.size, dtype=np.float32),)
    full = Point(made.params, State(step=1, skipped=2, nonfinite=3, windows=4, truncation=(0.5,), buffers=buffers))
    snapshots, losses = Snapshots(tmp_path), journal(spec(), llama, 1)
    snapshots.write("ftjob-a", full, Prefix(spec(), losses).hex())
    found = snapshots.newest("ftjob-a", spec(), losses)
    assert found is not None
    assert same(found, full)
