"""The API image: what its lock and its files make of an empty folder, run as its user from a tree nobody can write."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import inspect

from db.session import make_engine
from tests.bases import tiny
from tests.images.tree import Tree
from tests.images.watching import WRITABLE, foreign_libraries, ready_after, report, status
from tests.ports import free_port
from tests.waiting import HANG

MODEL_CODE = ("torch", "vllm", "transformers", "peft", "safetensors")
MOST_BYTES = 250e6


@dataclass(frozen=True)
class Api:
    pid: int
    url: str
    metrics_url: str
    took: float


@pytest.fixture(scope="module")
def api(api_tree: Tree, database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """`CMD` of the image, with its passwords in files and not in its URLs."""
    ports, logs = (free_port(), free_port()), tmp_path_factory.mktemp("api")
    env = {"ONWARD_HOST": "127.0.0.1", "ONWARD_PORT": str(ports[0]), "ONWARD_API_METRICS_PORT": str(ports[1])}
    child = api_tree.start(
        api_tree.dockerfile.command("api"), logs / "log", **env, **with_secrets(api_tree, database_url, redis_url)
    )
    url = f"http://127.0.0.1:{ports[0]}"
    took = ready_after(child, f"{url}/readyz", logs / "log")
    yield Api(child.pid, url, f"http://127.0.0.1:{ports[1]}", took)
    child.terminate()
    # uvicorn ends in order and then by the signal that it was sent.
    assert child.wait(HANG) in (0, -signal.SIGTERM), (logs / "log").read_text()[-3000:]


def with_secrets(tree: Tree, database_url: str, redis_url: str) -> dict[str, str]:
    """Variables that carry no password, and the folder of files that do."""
    folder = tree.tmp / "secrets"
    folder.mkdir(exist_ok=True)
    env = {"ONWARD_SECRETS_DIR": str(folder)}
    for name, url in (("database", database_url), ("redis", redis_url)):
        before, _, after = url.partition("@")
        start, _, password = before.rpartition(":")
        (folder / f"onward_{name}_password").write_text(password + "\n")
        env[f"ONWARD_{name.upper()}_URL"] = f"{start}@{after}".replace("://@", "://")
        assert password not in env[f"ONWARD_{name.upper()}_URL"]
    return env


def test_it_serves(api: Api) -> None:
    report("api", start_to_ready_seconds=api.took)
    assert status(f"{api.url}/healthz") == 200


def test_metrics_have_their_own_port(api: Api) -> None:
    assert status(f"{api.metrics_url}/metrics") == 200
    assert status(f"{api.url}/metrics") == 404


def test_the_health_check_tells_a_living_api_from_a_dead_one(api: Api, api_tree: Tree) -> None:
    probe = api_tree.dockerfile.health("api")
    *command, url = probe
    assert api_tree.run([*command, url.replace("http://127.0.0.1:8000", api.url)]).returncode == 0
    assert api_tree.run([*command, f"http://127.0.0.1:{free_port()}/healthz"]).returncode == 1


def test_it_needs_no_library_that_the_base_has_not(api: Api, api_tree: Tree) -> None:
    assert foreign_libraries(api.pid, api_tree.root) == set()


def test_migrate_fills_an_empty_database(api_tree: Tree, empty_database_url: str) -> None:
    done = api_tree.run(["onward", "migrate"], ONWARD_DATABASE_URL=empty_database_url)
    assert done.returncode == 0, done.stderr
    engine = make_engine(empty_database_url, pool_size=1)
    assert {"jobs", "leases", "alembic_version"} <= set(inspect(engine).get_table_names())
    engine.dispose()


def test_tenants_and_keys_are_made_from_this_image(api: Api, api_tree: Tree, database_url: str) -> None:
    env = {"ONWARD_DATABASE_URL": database_url}
    made = api_tree.run(["onward", "tenants", "create", "acme"], **env)
    assert made.returncode == 0, made.stderr
    key = api_tree.run(["onward", "keys", "create", "acme"], **env)
    assert key.stdout.startswith("sk-onward-"), key.stderr
    listed = api_tree.run(
        ["onward", "files", "list"], ONWARD_BASE_URL=f"{api.url}/v1", ONWARD_API_KEY=key.stdout.strip()
    )
    assert listed.returncode == 0, listed.stderr


def test_doctor_finds_nothing_wrong(api_tree: Tree, database_url: str, redis_url: str) -> None:
    """That no worker is there is for it to say, and none of its failures."""
    folder = api_tree.tmp / "models"
    folder.mkdir()
    env = {"ONWARD_MODELS": json.dumps({"tiny": str(tiny("llama", folder))})}
    done = api_tree.run(["onward", "doctor", "--json"], **env, **with_secrets(api_tree, database_url, redis_url))
    told = json.loads(done.stdout)
    assert [finding for finding in told["findings"] if finding["mark"] == "fail"] == []
    assert {"models", "store", "broker", "database"} <= {finding["part"] for finding in told["findings"]}
    assert done.returncode == 0


def test_it_holds_no_model_code(api_tree: Tree) -> None:
    names = {path.name for path in api_tree.packages.iterdir()}
    assert names.isdisjoint(MODEL_CODE)
    assert "fastapi" in names
    asked = f"import importlib.util as u; print([n for n in {MODEL_CODE} if u.find_spec(n)])"
    assert api_tree.run(["python", "-c", asked]).stdout.strip() == "[]"


def test_it_can_install_nothing(api_tree: Tree) -> None:
    names = {path.name for path in api_tree.packages.iterdir()}
    assert names.isdisjoint({"pip", "setuptools", "wheel"})


def test_it_is_small(api_tree: Tree) -> None:
    size = api_tree.size()
    report("api", installed_megabytes=size / 1e6)
    assert size < MOST_BYTES


def test_its_user_can_write_nothing_but_its_folders(api_tree: Tree) -> None:
    found = api_tree.run(["python", "-c", WRITABLE, str(api_tree.root)]).stdout.split()
    assert found
    assert [path for path in map(Path, found) if not path.is_relative_to(api_tree.tmp)] == []


def test_a_start_leaves_nothing_behind(api: Api, api_tree: Tree) -> None:
    assert {path.name for path in api_tree.tmp.iterdir()} <= {"secrets", "models"}
    assert not api_tree.state.exists()


def test_a_replay_is_sent_to_the_image_that_can_do_it(api_tree: Tree, database_url: str) -> None:
    done = api_tree.run(["onward", "adapters", "verify", "ft:none"], ONWARD_DATABASE_URL=database_url)
    assert done.returncode == 1
    assert "run it in the worker's image" in done.stderr
    assert "Traceback" not in done.stderr
