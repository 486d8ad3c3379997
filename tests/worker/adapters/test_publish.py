"""A published directory is whole and a function of spec and journal: equal adapters, equal bytes, on any machine."""

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
from tests.waiting import HANG
from tests.worker.adapters.published import base, journal, replay, spec
from worker.adapters.publish import publish
from worker.runs import recipes
from worker.runs.replay import Point


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return base("llama", tmp_path_factory.mktemp("bases"))


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
layout = recipes.layout(job, base)
made = replay(recipes.method(job, layout), {losses!r})
print(peft_files.sha256(peft_files.weights(layout, made.params)))
assert not {{"torch", "vllm", "transformers"}} & set(sys.modules), "a replay needs no engine"
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=HANG)
    assert out.stdout.strip() == published.sha256
