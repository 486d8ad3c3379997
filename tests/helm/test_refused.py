"""Values that would not work are refused before anything is installed, by a message that names the value."""

import pytest

from tests.helm.charts import VALUES, template

EXTERNAL = VALUES[0].parent / "external.yaml"


def models(*changes: str) -> str:
    return "models: [" + ", ".join(f"{{{change}}}" for change in changes) + "]"


WEIGHTS = "weights: {existingClaim: w}"
TABLE = [
    ("models: []", "models"),
    (models(f"name: m, {WEIGHTS}"), "models"),
    (models(f"name: m, path: m, hubId: a/b, {WEIGHTS}"), "models"),
    (models("name: m, path: m"), "models"),
    (models(f"name: m, path: ../etc, {WEIGHTS}"), "path"),
    (models(f"name: m, path: /etc, {WEIGHTS}"), "path"),
    (models(f'name: "m\' OR 1=1", path: m, {WEIGHTS}'), "name"),
    (models("name: m, hubId: 'https://x/y'"), "hubId"),
    (models("name: m, hubId: a/b, replica: 2"), "replica"),
    (models("name: m, hubId: a/b", "name: m, hubId: c/d"), "models"),
    (models("name: A, hubId: a/b", "name: a-559aead0, hubId: c/d"), "models"),
    ("modelDefaults: {device: tpu}", "device"),
    ("modelDefaults: {dtype: float8}", "dtype"),
    ("modelDefaults: {resources: {requests: {cpu: 1}, limits: {cpu: null, memory: null}}}", "limits"),
    ("modelDefaults: {replicas: -1}", "replicas"),
    ("worker: {sliceSeconds: 0}", "sliceSeconds"),
    ("worker: {rollout: {maxSurge: 0, maxUnavailable: 0}}", "worker.rollout"),
    ("api: {resources: {limits: {cpu: 1, memory: lots}}}", "memory"),
    ("api: {ingress: {enabled: true}}", "host"),
    ("api: {autoscaling: {minReplicas: 9, maxReplicas: 2}}", "minReplicas"),
    ("api: {service: {port: 99999}}", "port"),
    ("database: {url: 'postgresql+psycopg://onward:secret@db/onward'}", "database"),
    ("database: {url: ''}", "database.url"),
    ("broker: {url: 'redis://:secret@cache:6379'}", "broker"),
    ("broker: {url: ''}", "broker.url"),
    ("secrets: {existingSecret: ''}", "secrets.existingSecret"),
    ("secrets: {password: x}", "password"),
    ("secrets: {keys: {databasePassword: '', redisPassword: ''}}", "secrets.keys"),
    ("secrets: {keys: {databaseUrl: url}}", "database.url"),
    ("secrets: {keys: {apiDatabasePassword: a}}", "secrets.keys"),
    ("api: {receiptSigners: nokey}", "receiptSigners"),
    ("secrets: {keys: {apiDatabaseUrl: a, workerDatabaseUrl: b}}", "secrets.keys.apiDatabaseUrl"),
    ("secrets: {keys: {s3AccessKeyId: a}}", "secrets.keys"),
    ("files: {store: 's3://bucket'}", "files.to"),
    ("files: {store: 's3://key:secret@bucket'}", "store"),
    ("trial: {database: {enabled: true}}", "trial.database"),
    ("trial: {existingSecret: mine}", "trial.existingSecret"),
    ("networkPolicy: {database: {to: []}}", "networkPolicy.database.to"),
    ("networkPolicy: {broker: {to: []}}", "networkPolicy.broker.to"),
    ("networkPolicy: {broker: {to: [{}]}}", "broker"),
    ("networkPolicy: {dns: []}", "networkPolicy.dns"),
    ("networkPolicy: {dnsPorts: []}", "dnsPorts"),
    ("networkPolicy: {dnsPorts: [dns]}", "dnsPorts"),
    ("api: {ingress: {enabled: true, host: a.example.com}}", "networkPolicy.ingressController"),
    ("api: {ingress: {enabled: true, host: a}}\nnetworkPolicy: {clients: []}", "networkPolicy.ingressController"),
    ("telemetry: {endpoint: 'http://c:4318'}", "networkPolicy.otlp.to"),
    ("telemetry: {logLevel: TRACE}", "logLevel"),
    ("hub: {offline: true}\n" + models("name: m, hubId: a/b"), "hub.cacheClaim"),
    ("networkPolicy: {hub: {to: []}}\n" + models("name: m, hubId: a/b"), "networkPolicy.hub.to"),
    ("keda: {minReplicas: 9}", "keda.minReplicas"),
    ("keda: {jobsPerWorker: 0}", "jobsPerWorker"),
    ("image: {pullPolicy: Sometimes}", "pullPolicy"),
    ("image: {preloaded: false}", "image.registry: say where onward.api was pushed"),
    ("image: {preloaded: false, api: r.example.com/api}", "image.registry: say where onward.worker was pushed"),
    ("image: {digests: {api: latest}}", "digests"),
    (models("name: m, path: ., weights: {existingClaim: w, fillFrom: a/b}"), "weights.fillFrom"),
    (models("name: m, path: m, weights: {existingClaim: w, revision: a}"), "fillFrom"),
    ("hub: {offline: true}\n" + models("name: m, path: m, weights: {existingClaim: w, fillFrom: a/b}"), "hub.offline"),
    (
        "networkPolicy: {hub: {to: []}}\n" + models("name: m, path: m, weights: {existingClaim: w, fillFrom: a/b}"),
        "networkPolicy.hub.to",
    ),
    ("extraVolumes: [{name: tmp, emptyDir: {}}]", "extraVolumes"),
    ("extraVolumes: [{name: weights-m, emptyDir: {}}]", "extraVolumes"),
    ("extraVolumeMounts: [{name: ca, mountPath: /ca}]", "extraVolumeMounts"),
    ("extraVolumes: [{name: ca, emptyDir: {}}]\nextraVolumeMounts: [{name: ca, mountPath: ca}]", "mountPath"),
    ("nonsense: 1", "nonsense"),
]


@pytest.mark.parametrize("change, named", TABLE, ids=[change for change, _ in TABLE])
def test_refused(change, named):
    run = template(EXTERNAL, "-f", "-", given=change)
    assert run.returncode != 0, "it was rendered"
    assert named in run.stderr.replace("/", "."), run.stderr
