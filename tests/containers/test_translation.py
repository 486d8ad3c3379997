"""What is changed of a pod's spec for Podman, and that nothing is lost in silence."""

import copy

import pytest

from tests.containers.pods.site import kinds
from tests.containers.pods.translation import ELSEWHERE, UNSAFE, Claim, Place, Unread, translated
from tests.helm.charts import rendered

WEIGHTS = Claim("run-weights", "/volumes/run-weights/_data")
SPEC = {
    "securityContext": {"runAsUser": 7, "fsGroup": 8},
    "volumes": [
        {"name": "secrets", "projected": {"sources": []}},
        {"name": "one", "secret": {"secretName": "s"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Mi"}},
        {"name": "weights", "persistentVolumeClaim": {"claimName": "weights", "readOnly": True}},
        {"name": "map", "configMap": {"name": "m"}},
    ],
    "containers": [
        {
            "name": "c",
            "image": "i",
            "command": ["run"],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
            "resources": {"limits": {"cpu": "1"}},
            "volumeMounts": [
                {"name": "weights", "mountPath": "/models/a", "subPath": "a/b", "readOnly": True},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }
    ],
}
PLACE = Place(
    "run-pod",
    "10.1.2.3",
    {"secrets": "/node/secrets", "one": "/node/one", "tmp": "/node/tmp"},
    {"weights": WEIGHTS},
)


@pytest.fixture
def spec():
    return copy.deepcopy(SPEC)


def played(spec):
    document, said = translated(spec, {"app": "x"}, PLACE)
    return document["spec"], said


def test_the_pod_is_named_and_labelled(spec):
    document, _ = translated(spec, {"app": "x"}, PLACE)
    assert (document["kind"], document["metadata"]) == ("Pod", {"name": "run-pod", "labels": {"app": "x"}})


def test_the_spec_itself_is_left_alone(spec):
    played(spec)
    assert spec == SPEC


def test_what_podman_reads_goes_through_untouched(spec):
    (container,) = played(spec)[0]["containers"]
    (given,) = SPEC["containers"]
    for key in ("name", "image", "command", "resources"):
        assert container[key] == given[key]
    assert container["volumeMounts"][1] == given["volumeMounts"][1]
    assert container["env"][0] == given["env"][0]
    assert played(spec)[0]["volumes"][4] == SPEC["volumes"][4]


def test_secrets_and_empty_folders_are_the_nodes(spec):
    volumes = played(spec)[0]["volumes"]
    for number, name in enumerate(("secrets", "one", "tmp")):
        assert volumes[number] == {"name": name, "hostPath": {"path": f"/node/{name}", "type": "Directory"}}


def test_a_claim_is_a_volume_of_this_run(spec):
    assert played(spec)[0]["volumes"][3]["persistentVolumeClaim"] == {"claimName": "run-weights", "readOnly": True}


def test_a_sub_path_is_a_folder_of_its_own(spec):
    pod, said = played(spec)
    (container,) = pod["containers"]
    mount = container["volumeMounts"][0]
    assert mount == {"name": "weights-below-5", "mountPath": "/models/a", "readOnly": True}
    assert pod["volumes"][5] == {"name": mount["name"], "hostPath": {"path": f"{WEIGHTS.folder}/a/b"}}
    assert any(line.startswith("subPath:") for line in said)


def test_fs_group_is_among_the_groups(spec):
    assert played(spec)[0]["securityContext"] == {"runAsUser": 7, "fsGroup": 8, "supplementalGroups": [8]}
    spec["securityContext"]["supplementalGroups"] = [5]
    assert played(spec)[0]["securityContext"]["supplementalGroups"] == [5, 8]


def test_the_pods_address_is_filled_in(spec):
    (container,) = played(spec)[0]["containers"]
    assert container["env"][1] == {"name": "IP", "value": "10.1.2.3"}


@pytest.mark.parametrize("key", [*ELSEWHERE, *UNSAFE])
def test_what_is_done_elsewhere_is_taken_out_and_said(spec, key):
    where = spec["containers"][0] if key.endswith("Probe") or key in ("ports", "lifecycle") else spec
    where[key] = {}
    pod, said = played(spec)
    assert key not in pod
    assert key not in pod["containers"][0]
    assert [line for line in said if line.startswith(f"{key}: ")]


def test_what_nobody_would_do_is_refused(spec):
    for where, key, value in (
        (spec, "hostAliases", []),
        (spec["containers"][0], "volumeDevices", []),
        (spec["containers"][0]["volumeMounts"][1], "subPathExpr", "$(A)"),
        (spec["containers"][0]["env"][0], "valueFrom", {"fieldRef": {"fieldPath": "spec.nodeName"}}),
    ):
        changed = where.copy()
        where[key] = value
        with pytest.raises(Unread):
            played(spec)
        where.clear()
        where.update(changed)
    spec["volumes"].append({"name": "disk", "nfs": {"server": "s"}})
    with pytest.raises(Unread, match="disk"):
        played(spec)


def test_init_containers_are_translated_too(spec):
    spec["initContainers"] = copy.deepcopy(spec["containers"])
    spec["initContainers"][0]["ports"] = [{"containerPort": 1}]
    (first,) = played(spec)[0]["initContainers"]
    assert "ports" not in first
    assert first["volumeMounts"][0]["name"] == "weights-below-5"
    assert played(spec)[0]["containers"][0]["volumeMounts"][0]["name"] == "weights-below-6"


def test_every_pod_of_the_trial_can_be_played():
    found = kinds(rendered("trial"))
    assert found.keys() == {"postgres", "valkey", "migrate", "api", "worker", "operator", "replay", "test"}
    for component, kind in found.items():
        spec = kind.template["spec"]
        volumes = spec.get("volumes", [])
        folders = {volume["name"]: "/f" for volume in volumes}
        claims = {"weights": WEIGHTS}
        document, said = translated(spec, {}, Place(component, "10.1.2.3", folders, claims))
        assert said
        (container,), (given,) = document["spec"]["containers"], spec["containers"]
        assert container["securityContext"] == given["securityContext"]
        assert {m["mountPath"] for m in container.get("volumeMounts", [])} == {
            m["mountPath"] for m in given.get("volumeMounts", [])
        }
