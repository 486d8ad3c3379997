"""Serving by vLLM's own LoRA kernels, in CUDA graphs where there are any, beside scoring by ours."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from db.contract.tokens.base_model import open_base
from tests.bases import tiny
from tests.waiting import HANG
from worker.engine.graphs import Ahead, arguments, want
from worker.scoring.open import open_scorer
from worker.settings import WorkerSettings
from worker.types import CannotCompute


def graphed(folder: Path, arch: str) -> Any:
    command = [sys.executable, "-m", "tests.worker.engine.graphed", str(folder), arch]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * HANG)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("arch", ["opt", "llama", "qwen2"])
def test_what_vllms_kernels_serve_is_pefts_and_scoring_between_is_as_alone(arch: str, tmp_path: Path) -> None:
    """On any device; on a CPU steps are run as they are written."""
    found = graphed(tmp_path, arch)
    assert found["said"] == found["theirs"]
    assert len({tuple(tokens) for tokens in found["said"]}) > 4, "adapters must matter for this test to say anything"
    assert found["between"] == [found["before"]] * 4
    assert found["graphs"] == (found["device"] == "cuda")
    assert found["compiled"] == 0, "compiled code does not see who stands in for a layer"


@pytest.mark.gpu
@pytest.mark.parametrize("arch", ["opt", "llama", "qwen2"])
def test_decoding_is_captured_on_a_gpu(arch: str, tmp_path: Path) -> None:
    assert graphed(tmp_path, arch)["graphs"]


def test_without_graphs_nothing_is_captured() -> None:
    assert arguments(False) == {"enforce_eager": True}
    assert arguments(True)["enforce_eager"] is False


def test_a_worker_without_a_gpu_refuses_them_before_its_engine_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        want()
        return
    settings = WorkerSettings(model="tiny", serve_graphs=True)
    base = open_base("tiny", str(tiny("llama", tmp_path)))
    monkeypatch.setattr("worker.engine.engine.start", lambda *_, **__: pytest.fail("the engine was started"))
    with pytest.raises(CannotCompute, match="ONWARD_SERVE_GRAPHS is for GPUs"):
        open_scorer(settings, base)


class Device:
    """Does what is launched when somebody waits for it."""

    def __init__(self) -> None:
        self.launched = self.done = 0

    def mark(self) -> "Mark":
        self.launched += 1
        return Mark(self, self.launched)


class Mark:
    def __init__(self, device: Device, number: int) -> None:
        self.device, self.number = device, number

    def synchronize(self) -> None:
        self.device.done = max(self.device.done, self.number)


def test_no_more_than_so_many_stretches_are_ahead_of_a_device() -> None:
    device = Device()
    ahead = Ahead(device.mark, most=3)
    for launched in range(1, 50):
        ahead.stretch()
        assert device.launched == launched
        assert device.launched - device.done == min(launched, 3)
    Ahead(None).stretch()  # where a call returns when it is done there is nothing to wait for
