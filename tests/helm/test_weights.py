"""The Job that fills a claim from the hub: what it is told, whom it may reach, and its program by the real library."""

import os
import subprocess
import sys

import pytest

from tests.helm.charts import VALUES, of_kind, only, rendered, template

FILLED = VALUES[0].parent / "filled.yaml"


def jobs():
    return of_kind(rendered("filled"), "Job", "weights")


def program():
    """The program and its arguments, as the first Job's container has them."""
    python, c, source, *arguments = only(jobs()[0]["spec"]["template"]["spec"]["containers"])["command"]
    assert (python, c) == ("python", "-c")
    return source, arguments


def run(folder, **env):
    source, (model, revision, _) = program()
    command = [sys.executable, "-c", source, model, revision, str(folder)]
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | env
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


def test_only_models_that_say_so_have_a_job():
    told = [only(job["spec"]["template"]["spec"]["containers"])["command"][3:] for job in jobs()]
    assert told == [
        ["HuggingFaceTB/SmolLM2-135M", "93efa2f", "/weights/smollm2"],
        ["Qwen/Qwen2-0.5B", "main", "/weights/qwen/half"],
    ]
    assert not of_kind(rendered("several-models"), "Job", "weights")


def test_the_job_alone_may_write_to_the_claim():
    claims = [
        (o["kind"], v["persistentVolumeClaim"].get("readOnly", False))
        for o in rendered("filled")
        if o["kind"] in ("Job", "Deployment")
        for v in o["spec"]["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in v
    ]
    assert {kind for kind, read_only in claims if not read_only} == {"Job"}
    assert len(claims) == 2 + 3 + 3


def test_it_reaches_names_and_the_hub_only():
    policy = only(of_kind(rendered("filled"), "NetworkPolicy", "weights"))["spec"]
    assert sorted({port["port"] for rule in policy["egress"] for port in rule["ports"]}) == [53, 443]
    assert not policy.get("ingress")
    assert not of_kind(rendered("several-models"), "NetworkPolicy", "weights")


def test_what_it_does_names_it_so_that_no_job_need_change():
    def names(*more):
        made = template(FILLED, *more).stdout
        return {line for line in made.splitlines() if line.startswith("  name: ") and "-weights-" in line}

    assert len(names()) == 2
    assert names() == names("--set", "api.replicas=3")
    assert not names() & names("--set", "image.tag=0.2.0")


def test_what_is_there_is_left_as_it_is(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    ran = run(tmp_path / "model", HF_HUB_OFFLINE="1")
    assert ran.returncode == 0, ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("hub", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_download_that_fails_leaves_no_model(tmp_path, hub):
    ran = run(tmp_path / "deep" / "model", HF_HOME=str(tmp_path / "home"), **hub)
    assert ran.returncode == 1
    assert not (tmp_path / "deep" / "model").exists()
    (line,) = ran.stderr.splitlines()
    assert line.startswith("HuggingFaceTB/SmolLM2-135M at 93efa2f was not downloaded: ")
