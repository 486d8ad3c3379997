"""Adapters that follow from a profile: whatever rebuilds them asks for that file, by its hash, and takes no other."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from db.contract.receipts import form
from db.contract.receipts.refused import Refused
from db.contract.tokens.base_model import open_base
from tests.bases import tiny
from tests.docs.following import ROOT
from tests.profiled import KINDS, made, sha256
from tests.worker.adapters.received import ROWS, STEPS, spec, trained
from worker.adapters import receipt, receipt_audit
from worker.adapters.peft_files import CONFIG, WEIGHTS
from worker.adapters.snapshots import Prefix, Snapshots
from worker.oracle.torch_scorer import TorchScorer
from worker.runs import profiles, rebuilding, recipes

each = pytest.mark.parametrize("name", KINDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("base")


@pytest.fixture(scope="module")
def base(folder):
    return open_base("tiny", str(tiny("llama", folder)))


def file(name, base, **changed):
    return made(KINDS[name], recipes.layout(spec(), base), base.fingerprint, **changed)


@pytest.fixture(scope="module")
def runs(folder, base):
    return {name: trained(folder, profile=file(name, base), name=name) for name in KINDS}


@each
def test_a_receipt_and_the_profile_give_the_adapter_back(runs, base, name):
    found = form.read(runs[name].receipt())
    told = receipt.beside(found, [b"another file", file(name, base)])
    files = receipt.rebuilt(told, base)
    assert files[WEIGHTS] == runs[name].weights
    assert b'"peft_type": "LORA"' in files[CONFIG]
    with pytest.raises(Refused, match="is not among the files given") as missing:
        receipt.beside(found, [file("senszoq", base, share=0.7)])
    assert missing.value.code == "profile"
    with pytest.raises(Refused, match="is not at hand"):
        receipt.rebuilt(found, base)


@each
def test_another_profile_is_not_taken_by_whoever_replays(runs, base, name):
    history = runs[name].told[0].history
    layout = recipes.layout(history.spec, base)
    other = made(KINDS[name], layout, base.fingerprint, share=0.7, hidden=4)
    if name == "activation_basis":
        other = profiles.written("basis", "elsewhere", "m", layout, profiles.read(history.profile).tensors)
    with pytest.raises(profiles.BadProfile, match="is wanted"):
        rebuilding.rebuild(replace(history, profile=other), base)
    wrong = {"senszoq": "basis", "activation_basis": "mask", "zo_finetuner": "mask"}[name]
    of_another_kind = made(wrong, layout, base.fingerprint)
    renamed = history.spec.method.model_copy(update={"profile": sha256(of_another_kind)})
    with pytest.raises(profiles.BadProfile, match=f"kind {wrong}"):
        recipes.method(history.spec.model_copy(update={"method": renamed}), layout, profile=of_another_kind)
    wide = made(KINDS[name], replace(layout, rank=3), base.fingerprint)
    renamed = history.spec.method.model_copy(update={"profile": sha256(wide)})
    with pytest.raises(profiles.BadProfile, match="another rank"):
        recipes.method(history.spec.model_copy(update={"method": renamed}), layout, profile=wide)


@each
def test_a_snapshot_belongs_to_the_profile_that_led_to_it(runs, base, name, tmp_path):
    history = runs[name].told[0].history
    half = rebuilding.rebuild(history.upto(STEPS // 2), base)
    Snapshots(tmp_path).write("a", half, Prefix(history.spec, history.losses[: STEPS // 2]).hex())
    found = Snapshots(tmp_path).newest("a", history.spec, history.losses, type(half.state))
    assert found is not None
    assert (
        rebuilding.rebuild(history, base, found).params.tobytes() == rebuilding.rebuild(history, base).params.tobytes()
    )
    method = history.spec.method.model_copy(update={"profile": "0" * 64})
    other = history.spec.model_copy(update={"method": method})
    assert Snapshots(tmp_path).newest("a", other, history.losses, type(half.state)) is None


def test_another_process_without_simd_rebuilds_to_the_bit(runs, base, tmp_path):
    """It imports neither torch nor an engine."""
    words = [sys.executable, "-c", PROGRAM, str(base.path), str(tmp_path)]
    for name in KINDS:
        (tmp_path / f"{name}.json").write_bytes(runs[name].receipt())
        (tmp_path / f"{name}.safetensors").write_bytes(file(name, base))
    dispatched = " ".join(np._core._multiarray_umath.__cpu_dispatch__)
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": dispatched, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in KINDS:
        assert (tmp_path / f"{name}.out").read_bytes() == runs[name].weights


PROGRAM = """
import sys
from pathlib import Path
from db.contract.receipts import form
from db.contract.tokens.base_model import open_base
from worker.adapters import receipt
folder = Path(sys.argv[2])
base = open_base("tiny", sys.argv[1])
for file in folder.glob("*.json"):
    told = receipt.beside(form.read(file.read_bytes()), [file.with_suffix(".safetensors").read_bytes()])
    file.with_suffix(".out").write_bytes(receipt.rebuilt(told, base)["adapter_model.safetensors"])
assert not {"torch", "vllm", "transformers"} & set(sys.modules)
"""


def test_a_child_and_its_parent_each_read_their_own(runs, folder, base):
    parent = runs["activation_basis"]
    child = trained(base.path, parent, file("zo_finetuner", base), name="zo_finetuner")
    both = [file("activation_basis", base), file("zo_finetuner", base)]
    found = form.read(child.receipt())
    assert receipt.rebuilt(receipt.beside(found, both), base)[WEIGHTS] == child.weights
    with pytest.raises(Refused, match="is not among"):
        receipt.beside(found, both[1:])


def test_an_audit_scores_its_steps_again(runs, base):
    told = receipt.beside(form.read(runs["zo_finetuner"].receipt()), [file("zo_finetuner", base)])
    data, scorer = receipt_audit.rows(told, base, ROWS), TorchScorer(base.path)
    again = list(receipt_audit.rescored(told, base, data, scorer, range(STEPS)))
    scorer.close()
    assert max(one.difference for one in again) < 1e-5
