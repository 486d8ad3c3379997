"""What single values do: device, slice, hooks, scaling, hub, monitoring."""

import json
import os
import re
import subprocess

import yaml

from tests.helm.charts import VALUES, of_kind, only, pods, rendered, template


def container(name, component="worker", at=0):
    made = of_kind(rendered(name), "Deployment", component)[at]
    return made["spec"], made["spec"]["template"]["spec"], made["spec"]["template"]["spec"]["containers"][0]


def env(one):
    return {e["name"]: e.get("value") for e in one["env"]}


def test_cuda():
    deployment, spec, one = container("cuda")
    assert one["image"] == "onward/worker:0.1.0-cuda"
    assert one["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert spec["terminationGracePeriodSeconds"] == 130
    assert env(one)["ONWARD_SLICE_SECONDS"] == "10"
    assert env(one)["ONWARD_THREADS"] == "0"
    assert one["startupProbe"]["failureThreshold"] == 240
    assert one["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert deployment["progressDeadlineSeconds"] > 240 * 15
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    shm = only([v for v in spec["volumes"] if v["name"] == "shared-memory"])
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert "nvidia.com/gpu" not in container("cuda", at=1)[2]["resources"]["limits"], "a slice of a GPU was named"


def test_cpu_threads_are_the_whole_cores():
    assert env(container("external")[2])["ONWARD_THREADS"] == "2"
    assert container("external")[2]["image"] == "onward/worker:0.1.0-cpu"


def test_grace_rounds_a_broken_slice_up():
    assert container("urls-from-secret")[1]["terminationGracePeriodSeconds"] == 60
    assert env(container("urls-from-secret")[2])["ONWARD_SLICE_SECONDS"] == "2.5"


def test_api_rolls_without_a_gap():
    deployment, spec, one = container("external", "api")
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert deployment["replicas"] == 2
    assert one["lifecycle"]["preStop"]["sleep"]["seconds"] + 20 < spec["terminationGracePeriodSeconds"]
    assert env(one)["ONWARD_API_METRICS_PORT"] == "9100"
    assert one["image"] == "onward/api:0.1.0"


def test_migration_comes_first_or_waits():
    job = only(of_kind(rendered("external"), "Job"))
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    name = job["spec"]["template"]["spec"]["serviceAccountName"]
    account = only([o for o in of_kind(rendered("external"), "ServiceAccount") if o["metadata"]["name"] == name])
    policy = only(of_kind(rendered("external"), "NetworkPolicy", "migrate"))
    for needed in (account, policy):
        assert int(needed["metadata"]["annotations"]["helm.sh/hook-weight"]) < 0
    assert "envFrom" not in job["spec"]["template"]["spec"]["containers"][0], "the ConfigMap is not there yet"
    trial = only(of_kind(rendered("trial"), "Job"))
    assert "annotations" not in trial["metadata"]
    assert trial["metadata"]["name"].endswith("-1")
    assert not of_kind(rendered("bare"), "Job")


def test_only_one_thing_sets_replicas():
    assert "replicas" not in container("keda")[0]
    assert container("several-models")[0]["replicas"] == 3
    assert "replicas" not in container("ingress-hpa", "api")[0]


def test_the_hub_is_reached_only_for_hub_models():
    assert env(container("several-models")[2])["HF_HUB_OFFLINE"] == "1"
    assert env(container("several-models", at=2)[2])["HF_HUB_OFFLINE"] == "0"
    assert env(container("hub-offline")[2])["HF_HUB_OFFLINE"] == "1"
    assert json.loads(env(container("hub")[2])["ONWARD_MODELS"]) == {"qwen": "Qwen/Qwen2-0.5B"}


def test_settings_change_restarts_and_another_model_does_not():
    def sums(name):
        made = list(of_kind(rendered(name), "Deployment"))
        return {o["spec"]["template"]["metadata"]["annotations"]["checksum/settings"] for o in made}

    assert sums("external") == sums("several-models") != sums("tracing")


def test_monitoring_objects():
    objects = rendered("monitored")
    for kind, key, job in (
        ("PodMonitor", "podMetricsEndpoints", "onward-worker"),
        ("ServiceMonitor", "endpoints", "onward-api"),
    ):
        made = only(of_kind(objects, kind))
        assert made["metadata"]["labels"]["release"] == "prometheus"
        rule = made["spec"][key][0]["relabelings"][0]
        assert (rule["targetLabel"], rule["replacement"]) == ("job", job)
    boards = [o for o in of_kind(objects, "ConfigMap") if "grafana_dashboard" in o["metadata"]["labels"]]
    assert boards
    assert all(json.loads(text)["title"] for o in boards for text in o["data"].values())
    assert only(of_kind(objects, "PrometheusRule"))["spec"]["groups"]
    assert only(of_kind(objects, "Service", "api"))["spec"]["ports"][0]["name"] == "http", "metrics stay inside"


def test_a_bucket_for_files():
    settings = only([m for m in of_kind(rendered("bucket"), "ConfigMap") if "ONWARD_LOG_LEVEL" in m["data"]])["data"]
    assert settings["ONWARD_FILE_STORE"] == "s3://files/onward"
    assert settings["ONWARD_S3_ENDPOINT"] == "https://minio.example.com:9000"
    assert settings["ONWARD_S3_REGION"] == "eu-1"
    for component in ("api", "worker"):
        _, spec, _ = container("bucket", component)
        (secrets,) = [v["projected"]["sources"] for v in spec["volumes"] if v["name"] == "secrets"]
        paths = {item["path"]: item["key"] for source in secrets for item in source["secret"]["items"]}
        assert paths["onward_s3_access_key_id"] == "s3-id"
        assert paths["onward_s3_secret_access_key"] == "s3-secret"
    store = {"to": [{"ipBlock": {"cidr": "10.3.0.0/24"}}], "ports": [{"port": 9000, "protocol": "TCP"}]}
    policies = of_kind(rendered("bucket"), "NetworkPolicy")
    reach = {p["metadata"]["name"].rpartition("-")[2] for p in policies if store in p["spec"].get("egress", [])}
    assert reach == {"api", "worker", "replay"}


def images(name):
    return {c["image"]: c["imagePullPolicy"] for _, _, spec in pods(rendered(name)) for c in spec["containers"]}


def test_images_come_from_a_registry_by_tag_or_digest_or_are_there():
    digest = "sha256:" + 32 * "ab"
    registry = "registry.example.com/team/onward"
    assert images("named") == {f"{registry}/api:0.1.0-rc1": "Always", f"{registry}/worker@{digest}": "Always"}
    assert set(images("external").values()) == {"Never"}, "what is preloaded is never asked of a public registry"
    whole = "image: {preloaded: false, api: r.example.com/api, worker: 'localhost:5000/worker'}"
    run = template(VALUES[0].parent / "external.yaml", "-f", "-", given=whole)
    assert "image: r.example.com/api:0.1.0\n" in run.stdout
    assert "image: localhost:5000/worker:0.1.0-cpu\n" in run.stdout


def test_annotations_go_where_they_are_said_to():
    objects = rendered("named")
    assert only(of_kind(objects, "Service", "api"))["metadata"]["annotations"] == {
        "cloud.example.com/scheme": "internal"
    }
    for component in ("api", "worker"):
        account = only(of_kind(objects, "ServiceAccount", component))
        assert account["metadata"]["annotations"] == {"cloud.example.com/role": "files"}
    assert "cloud.example.com" not in str(of_kind(objects, "ServiceAccount", "migrate"))
    boards = of_kind(rendered("monitored"), "ConfigMap", "dashboard")
    assert len(boards) > 5
    assert all(board["metadata"]["annotations"] == {"grafana_folder": "Onward"} for board in boards)


def test_every_pod_has_the_priority_class_or_its_models_own():
    assert {spec["priorityClassName"] for _, _, spec in pods(rendered("named"))} == {"low"}
    workers = [spec["priorityClassName"] for what, labels, spec in pods(rendered("several-models")) if "worker" in what]
    assert workers == ["high", "low", "low", "low"]
    assert not any("priorityClassName" in spec for _, _, spec in pods(rendered("external")))


def test_nothing_is_left_of_a_test_that_succeeded():
    notes = only(of_kind(rendered("external"), "Pod"))["metadata"]["annotations"]
    assert notes["helm.sh/hook"] == "test"
    assert set(notes["helm.sh/hook-delete-policy"].split(",")) == {"before-hook-creation", "hook-succeeded"}


def mebibytes(size):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", size).groups()
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


def test_the_nodes_disk_is_asked_for_what_the_volumes_may_hold(objects):
    """And for the logs; so a pod is not put where it would be evicted."""
    for what, _, spec in pods(objects):
        places = [v["emptyDir"] for v in spec.get("volumes", []) if "emptyDir" in v]
        needed = sum(mebibytes(place["sizeLimit"]) for place in places if place.get("medium") != "Memory") + 128
        resources = only(spec["containers"])["resources"]
        for kind in ("requests", "limits"):
            assert resources[kind]["ephemeral-storage"] == f"{needed}Mi", what


def test_a_disk_that_is_named_stays_and_units_are_understood():
    given = (
        "api: {tmpSize: 1.5G, resources: {requests: {ephemeral-storage: 1Gi}}}\n"
        "worker: {homeSize: '1073741824', tmpSize: 1000k}"
    )
    run = template(VALUES[0].parent / "external.yaml", "-f", "-", given=given)
    assert run.returncode == 0, run.stderr
    found = [o for o in yaml.safe_load_all(run.stdout) if o]
    api, worker = (
        only(of_kind(found, "Deployment", part))["spec"]["template"]["spec"]["containers"][0]["resources"]
        for part in ("api", "worker")
    )
    assert (api["requests"]["ephemeral-storage"], api["limits"]["ephemeral-storage"]) == ("1Gi", "1559Mi")
    assert worker["requests"]["ephemeral-storage"] == "1153Mi"
    assert (worker["requests"]["memory"], worker["limits"]["cpu"]) == ("8Gi", "2")


def test_every_process_that_dials_a_server_has_the_own_ca():
    seen = []
    for what, labels, spec in pods(rendered("own-ca")):
        if labels["app.kubernetes.io/component"] == "test":
            continue
        assert {"name": "own-ca", "configMap": {"name": "own-ca"}} in spec["volumes"], what
        mounts = only(spec["containers"])["volumeMounts"]
        assert {"name": "own-ca", "mountPath": "/etc/ssl/own", "readOnly": True} in mounts, what
        seen.append(labels["app.kubernetes.io/component"])
    assert sorted(seen) == ["api", "migrate", "operator", "replay", "worker", "worker"]


def test_valkey_is_not_started_with_an_empty_password(tmp_path):
    """Its own command, run by a shell: the server in it is a stub that says what configuration it was given."""
    (one,) = only(of_kind(rendered("trial"), "StatefulSet", "valkey"))["spec"]["template"]["spec"]["containers"]
    password, stub = tmp_path / "password", tmp_path / "valkey-server"
    stub.write_text('#!/bin/sh\ncat "$1"\n')
    stub.chmod(0o755)
    *shell, script = one["command"]
    script = script.replace("/tmp/", f"{tmp_path}/").replace("/run/secrets/trial/redisPassword", str(password))
    for text, answer in {"": "", "\n": "", "secret\n": 'requirepass "secret"\n'}.items():
        password.write_text(text)
        path = f"{tmp_path}:{os.environ['PATH']}"
        run = subprocess.run([*shell, script], env={"PATH": path}, capture_output=True, text=True)
        assert (run.stdout, run.returncode == 0) == (answer, bool(answer))
        assert bool(answer) or run.stderr.strip().endswith("is empty")


def replay(name):
    made = only([o for o in of_kind(rendered(name), "CronJob") if o["metadata"]["name"].endswith("-replay")])
    spec = made["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return made["spec"], spec, only(spec["containers"])


def test_journals_are_replayed_in_the_workers_image_with_every_model():
    """The API's image has no libraries for it, and no other pod has the owner's password and the models."""
    cron, spec, one = replay("several-models")
    assert (cron["suspend"], one["command"][0]) == (True, "sleep")
    assert one["image"] == container("several-models")[2]["image"]
    api = container("several-models", "api")[2]
    assert env(one)["ONWARD_MODELS"] == env(api)["ONWARD_MODELS"]
    weights = [mount for mount in api["volumeMounts"] if mount["mountPath"].startswith("/models/")]
    assert weights
    assert [mount for mount in one["volumeMounts"] if mount["mountPath"].startswith("/models/")] == weights
    assert {"hub"} <= {volume["name"] for volume in spec["volumes"]}
    assert replay("cuda")[2]["image"] == "onward/worker:0.1.0-cuda"


def test_a_replay_reaches_the_hub_only_where_models_come_from_it():
    def ports(name):
        policy = only(
            [o for o in of_kind(rendered(name), "NetworkPolicy") if o["metadata"]["name"].endswith("-replay")]
        )
        return sorted({port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]})

    assert ports("external") == [53, 5433, 6379]
    assert ports("several-models") == [53, 443, 5433, 6379]
