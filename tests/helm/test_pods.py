"""What holds for every pod and container of the chart, and how processes are told what they need."""

import json
import math
import re
from urllib.parse import urlsplit

import pytest
import yaml

from api.settings import Settings as ApiSettings
from tests.helm.charts import CHART, VALUES, matches, of_kind, only, pods, rendered, template
from worker.settings import WorkerSettings

OTHERS = {"ONWARD_SECRETS_DIR", "OTEL_EXPORTER_OTLP_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN_PATH"}
EXTRA = {"OMP_NUM_THREADS"}  # of the values sets' extraEnv
SERVERS = ("postgres", "valkey")
NODE = {'{"fieldRef": {"fieldPath": "status.podIP"}}': "10.1.2.3"}  # what a node fills in


def environment(spec, objects):
    """Names and values of a pod's one container, those of its ConfigMap too."""
    container = only(spec["containers"])
    maps = {o["metadata"]["name"]: o["data"] for o in of_kind(objects, "ConfigMap")}
    shared = {k: v for source in container.get("envFrom", []) for k, v in maps[source["configMapRef"]["name"]].items()}
    own = {
        one["name"]: one.get("value", NODE.get(json.dumps(one.get("valueFrom")))) for one in container.get("env", [])
    }
    return shared | own


def test_every_pod_is_locked_down(objects):
    found = list(pods(objects))
    assert len(found) >= 3
    for name, _, spec in found:
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["serviceAccountName"] in {o["metadata"]["name"] for o in of_kind(objects, "ServiceAccount")}, name
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True, name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        user = 999 if "postgres" in name else 10001
        given = {key: pod.get(key) for key in ("runAsUser", "runAsGroup", "fsGroup")}
        assert given == dict.fromkeys(given, None if objects == rendered("openshift") else user), name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert not any("hostPath" in volume for volume in spec.get("volumes", []))
        for container in spec["containers"] + spec.get("initContainers", []):
            locked = container["securityContext"]
            assert locked["readOnlyRootFilesystem"] is True
            assert locked["allowPrivilegeEscalation"] is False
            assert locked["runAsNonRoot"] is True
            assert locked["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name


def test_accounts_have_no_token(objects):
    assert all(o["automountServiceAccountToken"] is False for o in of_kind(objects, "ServiceAccount"))


def test_what_serves_has_probes_on_its_named_ports(objects):
    for name, _, spec in pods(objects):
        if name.startswith(("CronJob/", "Job/", "Pod/")):
            continue
        container = only(spec["containers"])
        ports = {port["name"] for port in container["ports"]}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container[kind]
            used = (probe.get("httpGet") or probe.get("tcpSocket") or {"port": None})["port"]
            assert used in ports or "exec" in probe, (name, kind)


def test_volumes_and_mounts_agree(objects):
    for name, _, spec in pods(objects):
        volumes = {v["name"] for v in spec.get("volumes", [])}
        if name.startswith("StatefulSet/"):
            volumes.add("data")
        mounts = only(spec["containers"]).get("volumeMounts", [])
        assert {m["name"] for m in mounts} == volumes, name
        assert all(len(v) <= 63 and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", v) for v in volumes)


def test_no_secret_is_in_plain_text(objects):
    """Secrets are files of a Secret that exists; the trial's are random and stand in their Secret alone."""
    trial = of_kind(objects, "Secret")
    for secret in trial:
        assert secret["metadata"]["name"].endswith("-trial")
        assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        everything = yaml.safe_dump([o for o in objects if o is not secret])
        assert all(len(value) >= 40 and value not in everything for value in secret["data"].values())
    for _, _, spec in pods(objects):
        for container in spec["containers"]:
            for one in container.get("env", []):
                assert "secretKeyRef" not in one.get("valueFrom", {})
                assert not re.search("password|token$", one["name"], re.I) or one["value"].startswith("/run/secrets/")
            assert not any("secretRef" in source for source in container.get("envFrom", []))
    assert not re.search(r"://[^\s/@]*:[^\s/@]+@", yaml.safe_dump(objects)), "a URL with a password"


def test_trial_passwords_are_random():
    first, second = (template(VALUES[0].parent / "trial.yaml").stdout for _ in range(2))
    line = re.compile(r"^  databasePassword: (\S+)$", re.M)
    assert line.findall(first) != line.findall(second)


def named_secrets(found):
    """The names of all Secrets that an object asks for."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key == "secretName":
                yield value
            elif key in ("secret", "secretKeyRef") and "name" in value:
                yield value["name"]
            elif key == "secretTargetRef":
                yield from (one["name"] for one in value)
            else:
                yield from named_secrets(value)
    elif isinstance(found, list):
        for one in found:
            yield from named_secrets(one)


def test_trial_passwords_can_be_those_of_a_secret_that_is_there():
    """So what renders again and again (Argo CD) renders the same."""
    objects = rendered("trial-secret")
    assert not of_kind(objects, "Secret")
    assert {name for found in objects for name in named_secrets(found)} == {"mine"}
    path = VALUES[0].parent / "trial-secret.yaml"
    assert template(path).stdout == template(path).stdout
    keys = {"databasePassword", "apiDatabasePassword", "workerDatabasePassword", "redisPassword", "serveSecret"}
    assert set(only(of_kind(rendered("trial"), "Secret"))["data"]) == keys
    assert all(f"`{key}`" in (CHART / "README.md").read_text() for key in keys)


def test_environment_is_what_the_settings_know(objects):
    fields = {"api": set(ApiSettings.model_fields), "worker": set(WorkerSettings.model_fields)}
    for name, labels, spec in pods(objects):
        component = labels["app.kubernetes.io/component"]
        if component in (*SERVERS, "test", "weights"):
            continue
        known = {f"ONWARD_{field}".upper() for field in fields["worker" if component == "worker" else "api"]}
        given = environment(spec, objects)
        assert set(given) <= known | OTHERS | EXTRA, name
        assert given["ONWARD_SECRETS_DIR"] == "/run/secrets/onward"
        projected = only([v for v in spec["volumes"] if v["name"] == "secrets"])["projected"]["sources"]
        files = {item["path"] for source in projected for item in source["secret"]["items"]}
        assert files
        assert files <= {f"onward_{f}" for f in fields["worker" if component == "worker" else "api"]}
        assert all(isinstance(value, str) for value in given.values())


def login(name, component):
    """(role in the URL or None, {file of its secrets: key}) of what a component's pod logs in to the database with."""
    ((spec, objects),) = {
        what: (spec, rendered(name))
        for what, labels, spec in pods(rendered(name))
        if labels["app.kubernetes.io/component"] == component
    }.values()
    url = environment(spec, objects).get("ONWARD_DATABASE_URL")
    volume = only([v for v in spec["volumes"] if v["name"] == "secrets"])
    items = [item for source in volume["projected"]["sources"] for item in source["secret"]["items"]]
    files = {i["path"].removeprefix("onward_"): i["key"] for i in items if "database" in i["path"]}
    return url and urlsplit(url).username, files


def test_each_process_logs_in_as_its_role():
    owner = {"database_password": "databasePassword"}
    for component in ("api", "worker", "migrate"):  # one URL for all, as before there were roles
        assert login("external", component) == ("onward", owner)
        assert login("urls-from-secret", component) == (None, {"database_url": "url"})
    for name, (api, worker) in {
        "roles": ("api", "worker"),
        "trial": ("apiDatabasePassword", "workerDatabasePassword"),
    }.items():
        passwords = {"api_database_password": api, "worker_database_password": worker}
        assert login(name, "api") == ("onward_api", {"database_password": api})
        assert login(name, "worker") == ("onward_worker", {"database_password": worker})
        assert login(name, "migrate") == ("onward", owner | passwords)
        assert login(name, "operator") == ("onward", owner)
    for component, key in {"api": "api-url", "worker": "worker-url", "migrate": "url", "operator": "url"}.items():
        assert login("roles-urls", component) == (None, {"database_url": key})
    crons = {
        name: [o["metadata"]["name"] for o in of_kind(rendered(name), "CronJob")] for name in ("external", "roles")
    }
    assert crons == {"external": ["trio-onward-replay"], "roles": ["trio-onward-operator", "trio-onward-replay"]}
    assert all(o["spec"]["suspend"] is True for o in of_kind(rendered("roles"), "CronJob"))
    assert login("roles", "replay") == ("onward", owner)


def test_workers_alone_have_the_key_that_signs_receipts_and_the_api_its_public_half():
    objects = rendered("roles")
    for component, _, spec in ((p[1]["app.kubernetes.io/component"], *p[1:]) for p in pods(objects)):
        volumes = [v for v in spec.get("volumes", []) if v["name"] == "secrets"]
        paths = {i["path"]: i["key"] for v in volumes for s in v["projected"]["sources"] for i in s["secret"]["items"]}
        assert paths.get("onward_receipt_key") == ("signs" if component == "worker" else None), component
        signers = environment(spec, objects).get("ONWARD_RECEIPT_SIGNERS")
        assert (signers is not None) == (component == "api"), component
    assert "receipt" not in str(rendered("external"))


def test_api_and_workers_alone_share_the_secret_of_chats():
    for name, key in {"roles": "serves", "trial": "serveSecret", "external": None}.items():
        objects = rendered(name)
        for what, labels, spec in pods(objects):
            component = labels["app.kubernetes.io/component"]
            volumes = [v for v in spec.get("volumes", []) if v["name"] == "secrets"]
            items = [i for v in volumes for s in v["projected"]["sources"] for i in s["secret"]["items"]]
            paths = {i["path"]: i["key"] for i in items}
            assert paths.get("onward_serve_secret") == (key if component in ("api", "worker") else None), what
            if component == "worker":
                given = environment(spec, objects)
                ports = {port["name"]: port["containerPort"] for port in only(spec["containers"])["ports"]}
                assert (given.get("ONWARD_SERVE_PORT"), given.get("ONWARD_SERVE_ADDRESS"), ports.get("serve")) == (
                    ("9200", "10.1.2.3", 9200) if key else (None, None, None)
                )


def test_worker_settings_are_accepted(objects, monkeypatch):
    for _, _, spec in (p for p in pods(objects) if p[1]["app.kubernetes.io/component"] == "worker"):
        with monkeypatch.context() as patch:
            given = environment(spec, objects)
            for key, value in given.items():
                if key.startswith("ONWARD_") and key != "ONWARD_SECRETS_DIR":
                    patch.setenv(key, value)
            settings = WorkerSettings()
        assert settings.models.keys() == {settings.model}
        assert settings.worker_metrics_port == 9100
        drain = settings.serve_drain_seconds if settings.serve_port else 0
        assert spec["terminationGracePeriodSeconds"] >= math.ceil(settings.slice_seconds) + 5 + drain


def test_selectors(objects):
    """A workload selects its own pods and nobody else's; every Service and budget selects pods there are."""
    all_pods = list(pods(objects))
    for found in objects:
        selector = found.get("spec", {}).get("selector")
        if found["kind"] in ("Deployment", "StatefulSet"):
            name = f"{found['kind']}/{found['metadata']['name']}"
            assert [n for n, labels, _ in all_pods if matches(selector, labels)] == [name]
        elif found["kind"] == "Service":
            chosen = [spec for _, labels, spec in all_pods if matches(selector, labels)]
            ports = {p["name"] for spec in chosen for c in spec["containers"] for p in c["ports"]}
            assert len(chosen) == 1
            assert {p["targetPort"] for p in found["spec"]["ports"]} <= ports
        elif found["kind"] == "PodDisruptionBudget":
            assert len([1 for _, labels, _ in all_pods if matches(selector, labels)]) == 1


def test_names_and_labels_fit(objects):
    for found in objects:
        name = found["metadata"]["name"]
        assert len(name) <= 52, name
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name), name
        assert all(len(v) <= 63 for v in found["metadata"]["labels"].values())


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.stem)
def test_one_worker_deployment_a_model(path):
    wanted = [m["name"] for m in yaml.safe_load(path.read_text())["models"]]
    made = of_kind(rendered(path.stem), "Deployment", "worker")
    assert [o["metadata"]["annotations"]["onward/model-name"] for o in made] == wanted
    assert len({o["metadata"]["labels"]["onward/model"] for o in made}) == len(wanted)
    api = only(of_kind(rendered(path.stem), "Deployment", "api"))["spec"]["template"]["spec"]
    assert list(json.loads(environment(api, rendered(path.stem))["ONWARD_MODELS"])) == sorted(wanted)


def test_the_chart_is_the_projects_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    pyproject = (CHART.parent / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in pyproject
