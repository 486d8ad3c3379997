"""Whatever the values, what comes out is what the API server and the operators take, field by field."""

from typing import Any

import kubernetes_validate
import pytest
from cloudcoil.models.keda.v1alpha1 import ScaledObject, TriggerAuthentication
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor

from tests.helm.charts import CHART, VALUES, Object, helm, rendered

CUSTOM: dict[str, Any] = {
    kind.__name__: kind for kind in (ScaledObject, TriggerAuthentication, PodMonitor, PrometheusRule, ServiceMonitor)
}


def lost(given: Any, kept: Any, at: str = "") -> list[str]:
    """Fields of `given` that a model did not take: it ignores what its CRD does not have."""
    if isinstance(given, dict):
        kept = kept if isinstance(kept, dict) else {}
        gone = [f"{at}.{key}" for key in given if key not in kept]
        return gone + [x for key in given if key in kept for x in lost(given[key], kept[key], f"{at}.{key}")]
    if isinstance(given, list):
        return [
            x for i, (one, other) in enumerate(zip(given, kept, strict=True)) for x in lost(one, other, f"{at}[{i}]")
        ]
    return []


def validate(found: Object) -> None:
    if found["kind"] in CUSTOM:
        model = CUSTOM[found["kind"]].model_validate(found)
        gone = lost(found, model.model_dump(by_alias=True, exclude_unset=True))
        assert not gone, f"{found['kind']} {found['metadata']['name']}: unknown {gone}"
    else:
        kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)


def test_every_object_is_valid(objects):
    for found in objects:
        validate(found)


def test_the_check_sees_an_unknown_field():
    scaled = next(o for o in rendered("keda") if o["kind"] == "ScaledObject")
    with pytest.raises(AssertionError, match="coolDown"):
        validate(scaled | {"spec": scaled["spec"] | {"coolDown": 1}})
    job = next(o for o in rendered("keda") if o["kind"] == "Job")
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(job | {"spec": job["spec"] | {"retries": 1}})


def test_objects_have_names_of_their_own(objects):
    names = [(o["kind"], o["metadata"]["name"]) for o in objects]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_lint(values):
    run = helm("lint", "--strict", str(CHART), "-f", str(values))
    assert run.returncode == 0, run.stdout + run.stderr


def test_there_are_enough_values_sets_and_all_kinds():
    kinds = {o["kind"] for path in VALUES for o in rendered(path.stem)}
    assert len(VALUES) >= 14
    assert set(CUSTOM) | {"Ingress", "HorizontalPodAutoscaler", "StatefulSet", "NetworkPolicy", "Job", "Pod"} <= kinds
