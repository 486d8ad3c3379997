"""The chart's other files: the README's table, the schema beside the values, the script for a real cluster."""

import json
import shutil
import subprocess
import sys

import pytest
import yaml

from tests.helm.charts import CHART
from tests.tools import tool

VALUES = CHART / "values.yaml"


def test_the_readme_table_is_what_the_values_say():
    source = "import table; print(table.with_table(open('README.md').read(), open('values.yaml').read()), end='')"
    run = subprocess.run([sys.executable, "-c", source], cwd=CHART, capture_output=True, text=True, check=True)
    assert run.stdout == (CHART / "README.md").read_text(), "run `python helm/table.py`"


def test_values_are_short():
    assert len(VALUES.read_text().splitlines()) < 250


def test_the_schema_knows_every_value_and_no_other():
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values, known, at):
        if "$ref" in known:
            known = schema["$defs"][known["$ref"].rsplit("/", 1)[1]]
        if known.get("additionalProperties") is False:
            assert known["properties"].keys() - {"global"} >= values.keys(), at
            if at in ("", ".hub", ".worker", ".api", ".keda", ".secrets", ".telemetry"):
                assert known["properties"].keys() - {"global"} == values.keys(), at
            for key, value in values.items():
                if isinstance(value, dict):
                    compare(value, known["properties"][key], f"{at}.{key}")

    compare(yaml.safe_load(VALUES.read_text()), schema, "")


def test_tests_and_programs_are_not_packaged(tmp_path):
    run = subprocess.run([tool("helm"), "package", CHART, "-d", tmp_path], capture_output=True, text=True, check=True)
    names = subprocess.run(["tar", "tzf", run.stdout.split()[-1]], capture_output=True, text=True, check=True).stdout
    assert "onward/values.yaml" in names
    assert "onward/rules/onward.yaml" in names
    assert not [name for name in names.split() if name.endswith((".py", ".sh"))]


def test_folders_of_programs_are_not_packaged(tmp_path):
    chart = shutil.copytree(CHART, tmp_path / "helm")
    for folder in ("images", "monitoring"):
        (chart / folder / "data.yaml").write_text("")
    run = subprocess.run([tool("helm"), "package", chart, "-d", tmp_path], capture_output=True, text=True, check=True)
    names = subprocess.run(["tar", "tzf", run.stdout.split()[-1]], capture_output=True, text=True, check=True).stdout
    assert "onward/templates/monitoring/rules.yaml" in names
    assert not [name for name in names.split() if name.startswith(("onward/images", "onward/monitoring"))]


def test_the_script_for_a_cluster_is_clean():
    script = CHART / "install-into-cluster.sh"
    run = subprocess.run([sys.prefix + "/bin/shellcheck", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert subprocess.run([script, "--help"], capture_output=True, text=True).returncode == 0


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["--registry", "r", "--model", "m"],
        ["--registry", "r", "--model", "m", "--hub-id", "a/b", "--claim", "c"],
        ["--no"],
    ],
)
def test_the_script_refuses_what_it_cannot_install(wrong):
    run = subprocess.run([CHART / "install-into-cluster.sh", *wrong], capture_output=True, text=True)
    assert run.returncode == 2
    assert "--hub-id" in run.stderr


def test_the_script_asks_where_the_images_are():
    script = CHART / "install-into-cluster.sh"
    run = subprocess.run([script, "--model", "m", "--hub-id", "a/b"], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("--registry: ")
