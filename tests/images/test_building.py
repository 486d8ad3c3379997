"""`make images` without an engine: which one is taken, what it is told, and what is said where something is missing.

The engines here are scripts that answer as Docker and Podman do. What the real ones build is tests/containers' matter.
"""

import hashlib
import json
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from helm.images import papers
from helm.images.build import Built, Layer, Sources, command, layers, secrets
from helm.images.engines import Engine, NoEngine, find
from helm.images.index import offered
from helm.images.targets import BASE_BYTES, TARGETS
from tests.images.dockerfile import ROOT

API, WORKER, CUDA = TARGETS
PODMAN = Engine("/usr/bin/podman", True, "podman version 4.3.1")
DOCKER = Engine("/usr/bin/docker", False, "Docker version 28.0.1")


def script(folder: Path, name: str, body: str) -> None:
    """An engine that answers `--version` with its name, and everything else by `body`."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{name} version 9"; exit 0; fi\n{body}\n')
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


def images(engines: Path, *args: str) -> "subprocess.CompletedProcess[str]":
    """`make images` where these engines are on PATH, and no other."""
    words = [sys.executable, "-m", "helm.images", "--out", str(engines / "out"), *args]
    env = {"PATH": str(engines), "HOME": str(engines)}
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=env)


def refusal(done: "subprocess.CompletedProcess[str]") -> str:
    """The one sentence with which it ends."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("images: ")
    assert said.endswith(".")
    return said


def test_docker_comes_first_and_podman_where_it_is_alone(tmp_path: Path) -> None:
    both, alone = tmp_path / "both", tmp_path / "alone"
    for name in ("docker", "podman"):
        script(both, name, "exit 0")
    script(alone, "podman", "exit 0")
    assert not find(tmp_path, path=str(both)).podman
    assert find(tmp_path, path=str(alone)).podman
    assert find(tmp_path, wanted="podman", path=str(both)).podman


def test_a_docker_that_is_podmans_own_wrapper_counts_as_podman(tmp_path: Path) -> None:
    script(tmp_path / "bin", "docker", "exit 0")
    (tmp_path / "bin/docker").write_text('#!/bin/sh\necho "podman version 4.3.1"\n')
    assert find(tmp_path, path=str(tmp_path / "bin")).podman


def test_an_engine_whose_daemon_is_down_is_passed_by_and_named(tmp_path: Path) -> None:
    down = "echo 'Cannot connect to the Docker daemon' >&2; exit 1"
    script(tmp_path / "one", "docker", down)
    script(tmp_path / "two", "docker", down)
    script(tmp_path / "two", "podman", "exit 0")
    assert find(tmp_path, path=str(tmp_path / "two")).podman
    with pytest.raises(
        NoEngine, match=r"^docker is here and does not answer \(Cannot connect to the Docker daemon\)\.$"
    ):
        find(tmp_path, path=str(tmp_path / "one"))


def test_no_engine_is_one_sentence(tmp_path: Path) -> None:
    assert refusal(images(tmp_path)) == "images: No container engine is here: docker or podman is not on PATH."
    assert "podman is not on PATH" in refusal(images(tmp_path, "--engine", "podman"))


def test_no_base_is_one_sentence(tmp_path: Path) -> None:
    body = 'case "$1" in image|pull) echo "no such host" >&2; exit 125;; esac'
    script(tmp_path, "podman", body)
    said = refusal(images(tmp_path, "--base", "x.example/python:3.11"))
    assert "The base image x.example/python:3.11 is not here and cannot be pulled (no such host): give --base." in said


def test_no_index_is_one_sentence_that_names_it(tmp_path: Path) -> None:
    body = 'if [ "$1" = build ]; then echo "ERROR: No matching distribution found for alembic==1.20.1" >&2; exit 1; fi'
    script(tmp_path, "podman", body)
    said = refusal(images(tmp_path, "--index", "https://index.example/simple"))
    assert "api: https://index.example/simple does not give what api.lock pins" in said


def test_a_build_that_fails_otherwise_is_not_the_indexs_fault(tmp_path: Path) -> None:
    script(tmp_path, "podman", 'if [ "$1" = build ]; then echo "no space left on device" >&2; exit 1; fi')
    assert "api: the build failed: no space left on device" in refusal(images(tmp_path))


@pytest.mark.parametrize(("option", "said"), [("--certificates", "is not a file"), ("--pip-conf", "is not a file")])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, option: str, said: str) -> None:
    script(tmp_path, "podman", "exit 0")
    assert f"{option}: {tmp_path}/none {said}" in refusal(images(tmp_path, option, str(tmp_path / "none")))


def test_what_podman_is_told_keeps_the_health_check() -> None:
    words = command(PODMAN, API, Sources(), "abc", {})
    assert words[words.index("--format") + 1] == "docker"
    assert "--format" not in command(DOCKER, API, Sources(), "abc", {})
    for engine in (PODMAN, DOCKER):
        assert "REVISION=abc" in command(engine, API, Sources(), "abc", {})


def test_base_index_and_certificates_are_arguments(tmp_path: Path) -> None:
    sources = Sources(
        base="mine/python:3.11", index="https://i/", torch_index="https://t/", certificates=tmp_path / "ca"
    )
    with secrets(sources) as mounted:
        words = command(PODMAN, WORKER, sources, "abc", mounted)
        conf = mounted["pip"].read_text()
    assert {"PYTHON=mine/python:3.11", "TORCH_INDEX=https://t/", f"id=certificates,src={tmp_path / 'ca'}"} <= set(words)
    assert "index-url = https://i/" in conf
    assert "cert = /run/secrets/certificates" in conf
    assert not any("TORCH_INDEX" in word for word in command(PODMAN, API, sources, "abc", mounted))


def test_a_pip_conf_of_ones_own_is_mounted_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "pip.conf"
    with secrets(Sources(index="https://i/", pip_conf=own)) as mounted:
        assert mounted == {"pip": own}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_installation_sees_what_is_mounted_and_keeps_none_of_it(target: Any) -> None:
    """A pip.conf may hold a password: it is a mount of the build, in no layer and no variable."""
    text = (ROOT / target.file).read_text().replace("\\\n", " ")
    installs = [line for line in text.splitlines() if " install --no-deps" in line]
    assert installs
    for line in installs:
        assert "--mount=type=secret,id=pip,target=/etc/pip.conf" in line
        assert "--mount=type=secret,id=certificates" in line
    assert "INDEX_URL" not in text


def test_a_folder_of_wheels_is_an_index(tmp_path: Path) -> None:
    (tmp_path / "Some_Thing-1.0-py3-none-any.whl").write_bytes(b"wheel")
    with offered(tmp_path) as url:
        page = urllib.request.urlopen(f"{url}some-thing/").read().decode()
        assert "Some_Thing-1.0-py3-none-any.whl" in page
        assert urllib.request.urlopen(f"{url}some-thing/Some_Thing-1.0-py3-none-any.whl").read() == b"wheel"
    with pytest.raises(FileNotFoundError, match="has no wheel"), offered(tmp_path / "out"):
        pass


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_sbom_names_every_pin_of_the_locks_and_nothing_else(target: Any, tmp_path: Path) -> None:
    count = papers.sbom(target, tmp_path / "bom.json")
    pins = set()
    for lock in target.locks:
        lines = (ROOT / "requirements" / lock).read_text().splitlines()
        pins |= {tuple(line.split()[0].split("==")) for line in lines if "==" in line}
    found = json.loads((tmp_path / "bom.json").read_text())
    assert {(part["name"], part["version"]) for part in found["components"]} == pins
    assert (found["bomFormat"], count) == ("CycloneDX", len(pins))


def test_provenance_says_what_it_was_made_from(tmp_path: Path) -> None:
    built = Built(API, "sha256:aa", 500, 200, "sha256:bb", 61.23, ())
    said = papers.provenance(built, PODMAN, Sources(), "cafe")
    assert said["subject"] == [{"name": API.image, "digest": {"sha256": "aa"}}]
    from_ = {one["uri"]: one["digest"] for one in said["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert from_["git"] == {"gitCommit": "cafe"}
    assert from_[Sources().base] == {"sha256": "bb"}
    lock = hashlib.sha256((ROOT / "requirements/api.lock").read_bytes()).hexdigest()
    assert from_["requirements/api.lock"] == {"sha256": lock}
    assert said["predicate"]["runDetails"]["metadata"]["seconds"] == 61.2


def test_the_aim_is_held_against_a_base_of_the_published_size() -> None:
    """A stand-in base is another size than the published one: what is compared is what the Dockerfile adds."""
    from helm.images.__main__ import table

    built = Built(API, "sha256:aa", int(470e6), int(220e6), "sha256:bb", 61.0, (Layer(int(12e6), "COPY /app"),))
    assert built.expected == 250e6 + BASE_BYTES
    line, layer = table([built])
    assert "470 MB, of which its base 220; on a published base of 130 MB 380 (aim 400 MB)" in line
    assert layer.split() == ["12.0", "MB", "COPY", "/app"]


def test_what_needs_gigabytes_is_built_only_where_it_is_asked_for() -> None:
    from helm.images.targets import USUAL

    assert CUDA.name not in USUAL


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("podman", '[{"size": 12000000, "CreatedBy": "COPY /app"}, {"size": 0, "CreatedBy": "CMD"}]'),
        ("docker", '{"Size": "12000000", "CreatedBy": "COPY /app"}\n{"Size": "0", "CreatedBy": "CMD"}'),
    ],
)
def test_layers_are_read_as_either_engine_tells_them(tmp_path: Path, name: str, said: str) -> None:
    """Podman has one list, its sizes numbers whatever is asked; Docker a line a layer, its sizes words."""
    script(tmp_path / "bin", name, f"cat {tmp_path / 'said'}")
    (tmp_path / "said").write_text(said)
    engine = Engine(str(tmp_path / "bin" / name), name == "podman", name)
    assert layers(engine, "an-image") == (Layer(12_000_000, "COPY /app"),)
