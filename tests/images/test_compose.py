"""docker-compose.yml: every profile is valid, nothing is left open, and what must be set is asked for in words."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from api.settings import Settings as ApiSettings
from db.telemetry.version import VERSION
from tests.images.composing import NEEDED, composed, config
from tests.images.dockerfile import ROOT, Dockerfile
from worker.settings import WorkerSettings

PROFILES: dict[str, list[str]] = {"default": [], "gpu": ["--profile", "gpu"]}
PARTS = {"postgres", "valkey", "migrate", "api", "proxy", "worker", "prometheus", "grafana"}
OURS = ("migrate", "api", "worker", "operator", "worker-gpu")
ONE_SHOT = {"migrate", "operator"}
PASSWORDS = tuple(f"{name}_password" for name in ("postgres", "api", "worker", "valkey", "grafana"))


@pytest.fixture(scope="module", params=PROFILES)
def project(request: pytest.FixtureRequest) -> dict[str, Any]:
    return composed(*PROFILES[request.param])


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """All parts, whatever their profile."""
    found: dict[str, Any] = composed("--profile", "*")["services"]
    return found


def test_profiles() -> None:
    assert set(composed()["services"]) == PARTS
    assert set(composed("--profile", "gpu")["services"]) == PARTS | {"worker-gpu"}
    assert set(composed("--profile", "operator")["services"]) == PARTS | {"operator"}


def test_every_container_is_bounded_locked_and_watched(project: dict[str, Any]) -> None:
    for name, part in project["services"].items():
        limits = part["deploy"]["resources"]["limits"]
        assert float(limits["cpus"]) > 0, name
        assert int(limits["memory"]) >= 256 << 20, name
        assert part["read_only"] is True, name
        assert part["cap_drop"] == ["ALL"], name
        assert part["security_opt"] == ["no-new-privileges:true"], name
        assert part["restart"] == ("no" if name in ONE_SHOT else "unless-stopped"), name
        assert (part["healthcheck"].get("disable") is True) == (name in ONE_SHOT), name
        assert name in ONE_SHOT or part["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name
        assert {"max-size", "max-file"} == set(part["logging"]["options"]), name
        mounts = [t.partition(":")[0] for t in part.get("tmpfs", [])] + [v["target"] for v in part.get("volumes", [])]
        assert "/tmp" in mounts, name
        assert not {"privileged", "network_mode", "pid", "cap_add"} & set(part), name


def test_what_is_published_is_published_on_this_machine_only(project: dict[str, Any]) -> None:
    published = {name: part["ports"] for name, part in project["services"].items() if part.get("ports")}
    assert set(published) == {"proxy", "prometheus", "grafana"}
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}


def test_images_are_pinned(whole: dict[str, Any]) -> None:
    for name, part in whole.items():
        image, _, tag = part["image"].partition(":")
        assert re.match(r"v?\d+", tag), name
        if image.startswith("onward/"):
            assert tag.removesuffix("-cpu").removesuffix("-cuda") == VERSION
            assert part["pull_policy"] == "never", "nobody publishes these names"


def test_what_is_built_is_there_to_build(whole: dict[str, Any]) -> None:
    built = {part["image"]: part["build"] for part in whole.values() if "build" in part}
    assert set(built) == {part["image"] for name, part in whole.items() if name in OURS}
    for build in built.values():
        file = Path(build["context"], build["dockerfile"])
        assert build.get("target", "api") in Dockerfile(file).stages


def test_files_and_folders_that_are_mounted_exist(whole: dict[str, Any]) -> None:
    binds = {v["source"] for part in whole.values() for v in part.get("volumes", []) if v["type"] == "bind"}
    own = {Path(source) for source in binds - {NEEDED["ONWARD_MODEL_FOLDER"]}}
    assert own == {ROOT / "helm/rules", ROOT / "helm/dashboards"}
    assert list((ROOT / "helm/rules").glob("*.yaml"))
    assert list((ROOT / "helm/dashboards").glob("*.json"))
    for part in whole.values():
        for volume in part.get("volumes", []):
            if volume["type"] == "bind":  # a folder that is missing is an error, not an empty folder of root's
                assert volume["read_only"] is True
                assert not volume["bind"].get("create_host_path")


def test_no_password_is_in_a_variable(tmp_path: Path) -> None:
    """Even with the files there, nothing of them is in what Compose prints, and no variable is meant for one."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    for name in PASSWORDS:
        (folder / name).write_text(f"sesame-{name}\n")
    done = config("--profile", "*", env=NEEDED, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sesame" not in done.stdout
    for name, part in composed("--profile", "*")["services"].items():
        for key, value in (part.get("environment") or {}).items():
            secret = re.search("PASSWORD|SECRET|TOKEN|KEY", key)
            assert not secret or str(value).startswith("/run/secrets"), (name, key)
            assert not re.search(r"://[^/@]*:[^/@]+@", str(value)), (name, key)


def test_a_password_is_one_file_for_the_server_and_for_us(whole: dict[str, Any]) -> None:
    given = {name: {s["source"]: s["target"] for s in part.get("secrets", [])} for name, part in whole.items()}
    valkey = {"valkey_password": "onward_redis_password"}
    serves = {"serve_secret": "onward_serve_secret"}
    for name in ("worker", "worker-gpu"):
        signs = {"receipt_key": "onward_receipt_key"} | serves
        assert given[name] == {"worker_password": "onward_database_password"} | signs | valkey
    assert given["api"] == {"api_password": "onward_database_password"} | serves | valkey
    assert (
        given["migrate"]
        == {
            "postgres_password": "onward_database_password",
            "api_password": "onward_api_database_password",
            "worker_password": "onward_worker_database_password",
        }
        | valkey
    )
    assert given["operator"] == given["migrate"]
    assert whole["operator"]["environment"] == whole["migrate"]["environment"]
    assert set(given["postgres"]) == {"postgres_password"}
    assert set(given["valkey"]) == {"valkey_password"}
    assert set(given["grafana"]) == {"grafana_password"}
    assert whole["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"] == given["postgres"]["postgres_password"]
    assert whole["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == given["grafana"]["grafana_password"]


def test_our_processes_read_what_is_set(whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ONWARD_ variable is a setting that exists, and the files complete the URLs."""
    (tmp_path / "onward_database_password").write_text("one/two\n")
    (tmp_path / "onward_redis_password").write_text("three\n")
    for name, kind in (("api", ApiSettings), ("worker", WorkerSettings), ("worker-gpu", WorkerSettings)):
        with monkeypatch.context() as patched:
            for key, value in whole[name]["environment"].items():
                patched.setenv(key, str(tmp_path) if key == "ONWARD_SECRETS_DIR" else value)
                field = key.removeprefix("ONWARD_").lower()
                assert not key.startswith("ONWARD_") or key == "ONWARD_SECRETS_DIR" or field in kind.model_fields, key
            read = kind()
            role = "onward_api" if name == "api" else "onward_worker"
            assert read.database_url == f"postgresql+psycopg://{role}:one%2Ftwo@postgres:5432/onward"
            assert read.redis_url == "redis://:three@valkey:6379/0"
            assert read.models == {"my-model": "/models/base"}


def test_who_asks_for_chats_and_who_answers_them_share_a_secret_and_a_network(whole: dict[str, Any]) -> None:
    """And nobody else has it; no port of a worker is published."""
    serve = {
        name for name, part in whole.items() if any(s["source"] == "serve_secret" for s in part.get("secrets", []))
    }
    assert serve == {"api", "worker", "worker-gpu", "worker-autograd"}
    assert {name for name in OURS if whole[name]["environment"].get("ONWARD_SERVE_PORT")} == {"worker", "worker-gpu"}
    for name in ("worker", "worker-gpu"):
        assert "ports" not in whole[name]
        assert "back" in set(whole[name]["networks"]) & set(whole["api"]["networks"])


def test_start_is_ordered_by_health(whole: dict[str, Any]) -> None:
    waits = {name: {d: c["condition"] for d, c in part.get("depends_on", {}).items()} for name, part in whole.items()}
    ours = {"migrate": "service_completed_successfully", "valkey": "service_healthy"}
    assert waits["api"] == waits["worker"] == waits["worker-gpu"] == ours
    assert waits["migrate"] == {"postgres": "service_healthy"}
    assert waits["grafana"] == {"prometheus": "service_healthy"}
    assert waits["proxy"] == {"api": "service_healthy"}


def test_who_meets_whom(whole: dict[str, Any]) -> None:
    networks = {name: set(part["networks"]) for name, part in whole.items()}
    assert networks["postgres"] == networks["valkey"] == networks["migrate"] == networks["operator"] == {"back"}
    assert networks["worker"] == networks["worker-gpu"] == {"back", "scrape"}
    assert networks["grafana"] == networks["proxy"] == {"front"}
    assert networks["api"] == {"back", "scrape", "front"}
    assert "back" not in networks["prometheus"]
    assert {name for name, net in composed()["networks"].items() if net.get("internal")} == {"back", "scrape"}


def test_there_is_time_to_stop(whole: dict[str, Any]) -> None:
    assert whole["worker"]["stop_grace_period"] == whole["worker-gpu"]["stop_grace_period"] == "1m20s"
    for name in OURS:  # as process 1 without a handler, a process would not be ended by SIGTERM
        assert whole[name]["init"] is True


def test_volumes(whole: dict[str, Any]) -> None:
    kept = {name: {v["target"] for v in p.get("volumes", []) if v["type"] == "volume"} for name, p in whole.items()}
    assert kept["postgres"] == {"/var/lib/postgresql", "/run/postgresql"}
    assert composed()["volumes"]["sockets"]["driver_opts"]["type"] == "tmpfs", "nothing of it outlives the container"
    assert kept["valkey"] == {"/data"}
    assert kept["worker"] == kept["worker-gpu"] == {"/var/lib/onward"}
    assert kept["prometheus"] == {"/prometheus"}
    assert kept["grafana"] == {"/var/lib/grafana"}


def test_the_device_is_asked_for(whole: dict[str, Any]) -> None:
    (device,) = whole["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])


def test_one_variable_leaves_the_cpu_worker_out() -> None:
    parts = composed("--profile", "gpu", ONWARD_CPU_WORKERS="0")["services"]
    assert parts["worker"]["scale"] == 0
    assert composed()["services"]["worker"]["scale"] == 1


def test_a_workers_threads_are_its_cores() -> None:
    worker = composed(ONWARD_WORKER_CPUS="6", ONWARD_WORKER_MEMORY="24g")["services"]["worker"]
    assert worker["environment"]["ONWARD_THREADS"] == "6"
    assert float(worker["deploy"]["resources"]["limits"]["cpus"]) == 6
    assert int(worker["deploy"]["resources"]["limits"]["memory"]) == 24 << 30


def test_own_servers_can_be_named() -> None:
    url = "postgresql+psycopg://me@db.example:5432/onward?sslmode=require"
    own = composed(ONWARD_BUNDLED_SERVERS="0", ONWARD_BACK_INTERNAL="false", ONWARD_DATABASE_URL=url)
    assert own["services"]["postgres"]["scale"] == own["services"]["valkey"]["scale"] == 0
    roles = composed(ONWARD_DATABASE_URL=url, ONWARD_API_DATABASE_URL="as-api", ONWARD_WORKER_DATABASE_URL="as-worker")
    for name, wanted in {"migrate": url, "api": "as-api", "worker": "as-worker", "worker-gpu": "as-worker"}.items():
        environment = composed("--profile", "*", ONWARD_DATABASE_URL=url)["services"][name]["environment"]
        assert environment["ONWARD_DATABASE_URL"] == url, "one URL for all, where no other is given"
        if name in roles["services"]:
            assert roles["services"][name]["environment"]["ONWARD_DATABASE_URL"] == wanted
    assert not own["networks"]["back"].get("internal")


@pytest.mark.parametrize(
    ("missing", "words"), [("ONWARD_MODEL", "public name of the base model"), ("ONWARD_MODEL_FOLDER", "the folder of")]
)
def test_what_is_missing_is_asked_for(missing: str, words: str) -> None:
    done = config(env={name: value for name, value in NEEDED.items() if name != missing})
    assert done.returncode != 0
    assert re.search(rf"required variable {missing} is missing a value: .*{words}", done.stderr)


def test_nothing_else_must_be_set() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"(?<!\$)\$\{(\w+):?\?", text)) == set(NEEDED)
    assert json.loads(composed()["services"]["api"]["environment"]["ONWARD_MODELS"]) == {"my-model": "/models/base"}
