"""The chart's pods, each from its own rendered spec, on Podman: `python -m tests.containers.pods`."""

import os

import pytest

from helm.images.engines import NoEngine, find
from tests.containers.pods.__main__ import course, missing
from tests.containers.pods.laid import size_of
from tests.containers.pods.looks import cores
from tests.containers.pods.pod import secret_files
from tests.containers.pods.site import kinds
from tests.helm.charts import rendered


@pytest.fixture
def engine(tmp_path):
    """Podman with the images of the chart; the test is skipped where there is none."""
    try:
        found = find(tmp_path / "engine", "podman")
    except NoEngine as error:
        pytest.skip(str(error))
    if os.geteuid() != 0:
        pytest.skip("volumes are laid out with owners and modes of their own, as root")
    if why := missing(found):
        pytest.skip(why)
    return found


@pytest.mark.slow
def test_every_pod_of_the_chart_runs_from_its_own_spec(engine):
    report = course(engine, print)
    assert report["broken"] == ""
    assert report["left behind"] == []
    components = {"api", "migrate", "operator", "postgres", "replay", "test", "valkey", "weights", "worker"}
    assert report["translated"].keys() == components
    assert {name.removeprefix("onward-").split("-")[0] for name in report["looked"]} == components


def test_quantities():
    assert [size_of(said) for said in ("7", "1Ki", "64Mi", "2Gi")] == [7, 2**10, 2**26, 2**31]
    assert [cores(said) for said in ("2", "500m", "1.5")] == [2.0, 0.5, 1.5]


def test_the_secrets_of_a_pod_are_found_in_its_spec():
    objects = rendered("trial")
    (secret,) = [one for one in objects if one["kind"] == "Secret"]
    held = {secret["metadata"]["name"]: secret["data"]}
    spec = kinds(objects)["migrate"].template["spec"]
    ((folder, files),) = secret_files(spec, held).items()
    assert folder == "/run/secrets/onward"
    assert files["onward_api_database_password"] == secret["data"]["apiDatabasePassword"]
    assert len(files) == 4
