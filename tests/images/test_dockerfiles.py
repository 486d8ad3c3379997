"""Both Dockerfiles: clean by hadolint, and what every target must say. The tests beside this run what they make."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from db.telemetry.version import VERSION
from tests.images.conftest import TARGETS
from tests.images.dockerfile import ROOT, Dockerfile
from tests.images.tree import UID

BIN = Path(sys.executable).parent
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def opened(room: str) -> Dockerfile:
    return Dockerfile(ROOT / room / "Dockerfile")


@pytest.mark.parametrize("room", ["api", "worker"])
def test_hadolint_finds_nothing(room: str) -> None:
    done = subprocess.run([BIN / "hadolint", ROOT / room / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("room", "target"), TARGETS)
def test_every_target_says_how_it_runs(room: str, target: str) -> None:
    image = opened(room)
    assert image.base_image(target) == "python:3.11-slim-bookworm"
    assert image.last(target, "USER") == f"{UID}:{UID}"
    assert image.last(target, "STOPSIGNAL") == "SIGTERM"
    assert image.command(target) == ["python", "-m", room]
    assert image.health(target)[:3] == ["python", "-m", "db.telemetry.http_check"]
    env = image.env(target)
    assert env["ONWARD_HOME"] == "/var/lib/onward"
    assert env["HOME"] == ("/tmp" if room == "api" else "/var/lib/onward")  # a worker's caches outlive it
    assert (env["PYTHONPATH"], env["PYTHONDONTWRITEBYTECODE"]) == ("/app", "1")
    assert env["PATH"].split(":")[0] == "/opt/venv/bin"


@pytest.mark.parametrize(("room", "target"), TARGETS)
def test_labels_and_version(room: str, target: str) -> None:
    image = opened(room)
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in image.labels(target).items()}
    assert labels["title"] == f"onward/{room}"
    assert labels["licenses"] == "Apache-2.0"
    assert {"description", "version", "revision"} <= set(labels)
    assert f"VERSION={VERSION}" in image.all(target, "ARG")


@pytest.mark.parametrize(("room", "target"), TARGETS)
def test_the_last_stage_builds_nothing(room: str, target: str) -> None:
    """It has no pip: environment and code come from other stages. gcc is in the CUDA image alone, for Triton."""
    image = opened(room)
    runs = " ".join(image.all(target, "RUN"))
    assert "pip install" not in runs
    assert "pip uninstall --yes" in runs
    assert set(re.findall(r"\b(?:gcc|g\+\+|make|build-essential|clang)\b", runs)) == (
        {"gcc"} if target == "cuda" else set()
    )
    assert "/opt/venv /opt/venv" in " ".join(image.all(target, "COPY"))


@pytest.mark.parametrize(("room", "target"), TARGETS)
def test_locks_are_installed_alone(room: str, target: str) -> None:
    image = opened(room)
    expected = {("worker", "cuda"): ["cuda.lock"], ("worker", "cpu"): ["torch.lock", "worker.lock"]}
    assert image.locks(target) == expected.get((room, target), ["api.lock"])
    installs = [run for s in image.sources(target) for run in image.all(s, "RUN") if " install " in run]
    assert installs
    for run in installs:
        assert "--no-deps --only-binary :all:" in run
    copied = {source for source in image.copies(target) if source.startswith("requirements/")}
    assert copied == {f"requirements/{lock}" for lock in image.locks(target)}
    assert all((ROOT / source).exists() for source in image.copies(target))


def test_torch_for_a_cpu_comes_from_an_index_that_can_be_chosen() -> None:
    image = opened("worker")
    (source,) = (s for s in image.sources("cpu") if image.stages[s].base == "venv")
    assert f"TORCH_INDEX={TORCH_INDEX}" in image.all(source, "ARG")
    (run,) = (run for run in image.all(source, "RUN") if "/lock/torch.lock" in run)
    assert '--index-url "${TORCH_INDEX}"' in run


def test_the_cuda_lock_has_a_wheel_for_every_pin(tmp_path: Path) -> None:
    """For the image's Python and C library. Nothing is downloaded: the whole of it is many gigabytes."""
    uv = [str(BIN / "uv"), "pip", "install", "--dry-run", "--no-deps", "--no-build", "--target", str(tmp_path)]
    platform = ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_36"]
    lock = ROOT / "requirements/cuda.lock"
    done = subprocess.run([*uv, *platform, "-r", str(lock)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pins = [line for line in lock.read_text().splitlines() if "==" in line]
    assert f"Would install {len(pins)} packages" in done.stderr


def test_the_cuda_target_asks_for_the_device() -> None:
    env = opened("worker").env("cuda")
    assert env["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert env["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"


@pytest.mark.parametrize("room", ["api", "worker"])
def test_the_builder_is_sent_what_is_copied_and_nothing_else(room: str) -> None:
    image = opened(room)
    lines = (ROOT / room / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {s.partition("/")[0] for r, t in TARGETS if r == room for s in image.copies(t)}
    assert sent == copied
    assert {"**/__pycache__", "**/*.pyc"} == {rule for rule in rules[1:] if not rule.startswith("!")}
