"""The chart, rendered by the real helm. Knows how to ask it and how to find pods in what it says."""

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.tools import tool
from tests.waiting import HANG

CHART = Path(__file__).parents[2] / "helm"
VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
RELEASE, NAMESPACE = "trio", "tuning"
Object = dict[str, Any]


def helm(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs helm; what it printed is in the result, whatever it is."""
    return subprocess.run([tool("helm"), *arguments], input=given, capture_output=True, text=True, timeout=HANG)


def template(values: Path, *more: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return helm("template", RELEASE, str(CHART), "-n", NAMESPACE, "-f", str(values), *more, given=given)


@cache
def rendered(name: str) -> list[Object]:
    """Every object of the values set `name`, once a session."""
    run = template(VALUES[0].parent / f"{name}.yaml")
    assert run.returncode == 0, run.stderr
    return [found for found in yaml.safe_load_all(run.stdout) if found]


def of_kind(objects: list[Object], kind: str, component: str | None = None) -> list[Object]:
    label = "app.kubernetes.io/component"
    return [o for o in objects if o["kind"] == kind and component in (None, o["metadata"].get("labels", {}).get(label))]


def pods(objects: list[Object]) -> Iterator[tuple[str, dict[str, str], Object]]:
    """(what makes it, its labels, its spec) of every pod."""
    for found in objects:
        name = f"{found['kind']}/{found['metadata']['name']}"
        if found["kind"] == "Pod":
            yield name, found["metadata"]["labels"], found["spec"]
            continue
        spec = found.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            made = spec["template"]
            yield name, made["metadata"]["labels"], made["spec"]


def matches(selector: Object, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", selector)
    return all(labels.get(key) == value for key, value in wanted.items())


def only(found: list[Object]) -> Object:
    assert len(found) == 1, found
    return found[0]
