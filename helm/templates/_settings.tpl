{{/* Where the servers are, and what of the values contradicts itself. */}}

{{- define "onward.databaseUrl" -}}
{{- if .Values.trial.database.enabled -}}
postgresql+psycopg://onward@{{ include "onward.name" (list . "postgres") }}:5432/onward
{{- else }}{{ .Values.database.url }}{{ end }}
{{- end }}

{{/* The Secret of the trial servers' passwords: the one that is there, or ours. */}}
{{- define "onward.trialSecret" -}}
{{- .Values.trial.existingSecret | default (include "onward.name" (list . "trial")) }}
{{- end }}

{{/* Whether API and workers have roles of their own: "yes" or nothing */}}
{{- define "onward.roles" -}}
{{- $keys := .Values.secrets.keys }}
{{- if or .Values.trial.database.enabled $keys.apiDatabaseUrl $keys.apiDatabasePassword }}yes{{ end }}
{{- end }}

{{/* (root, component) -> an item of its environment; none where the mounted secret has the URL whole */}}
{{- define "onward.databaseEnv" -}}
{{- $root := index . 0 }}{{ $component := index . 1 }}
{{- with include "onward.databaseUrl" $root }}
{{- $url := . }}
{{- if and (include "onward.roles" $root) (has $component (list "api" "worker")) }}
{{- $url = regexReplaceAll "://[^@/]*@" . (printf "://onward_%s@" $component) }}
{{- end }}
- {name: ONWARD_DATABASE_URL, value: {{ $url | quote }}}
{{- end }}
{{- end }}

{{- define "onward.brokerUrl" -}}
{{- if .Values.trial.broker.enabled -}}
redis://{{ include "onward.name" (list . "valkey") }}:6379/0
{{- else }}{{ .Values.broker.url }}{{ end }}
{{- end }}

{{/* Environment of every process of ours beside the database URL; URLs are empty where the mounted secret has them whole. */}}
{{- define "onward.sharedEnv" -}}
ONWARD_SECRETS_DIR: /run/secrets/onward
{{- with include "onward.brokerUrl" . }}
ONWARD_REDIS_URL: {{ . | quote }}
{{- end }}
{{- if ne .Values.files.store "database" }}
ONWARD_FILE_STORE: {{ .Values.files.store | quote }}
ONWARD_S3_REGION: {{ .Values.files.region | quote }}
{{- with .Values.files.endpoint }}
ONWARD_S3_ENDPOINT: {{ . | quote }}
{{- end }}
{{- end }}
ONWARD_LOG_FORMAT: {{ .Values.telemetry.logFormat }}
ONWARD_LOG_LEVEL: {{ .Values.telemetry.logLevel }}
{{- with .Values.telemetry.endpoint }}
OTEL_EXPORTER_OTLP_ENDPOINT: {{ . | quote }}
{{- end }}
{{- end }}

{{/* Without a registry in front of it a node asks the public one for a name that anybody may take there. */}}
{{- define "onward.checkImages" -}}
{{- if not (or .registry .preloaded) }}
{{- range list .api .worker }}
{{- if not (regexMatch "^(localhost|[^/]*[.:][^/]*)/" .) }}
{{- fail (printf "image.registry: say where %s was pushed, or set image.preloaded to true where every node has it already" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Peers of this namespace alone leave the ingress controller out, and every request from outside with it. */}}
{{- define "onward.checkIngress" -}}
{{- $net := .Values.networkPolicy }}
{{- if and $net.enabled .Values.api.ingress.enabled (not $net.ingressController) }}
{{- $beyond := false }}
{{- range $net.clients }}{{ if or (hasKey . "namespaceSelector") (hasKey . "ipBlock") }}{{ $beyond = true }}{{ end }}{{ end }}
{{- if not $beyond }}
{{- fail "networkPolicy.ingressController: say where the controller of api.ingress is, for networkPolicy.clients has nobody outside this namespace" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "onward.check" -}}
{{- $v := .Values }}{{ $keys := $v.secrets.keys }}{{ $net := $v.networkPolicy }}
{{- include "onward.checkImages" $v.image }}
{{- include "onward.checkIngress" . }}
{{- $volumes := dict }}
{{- range $v.extraVolumes }}{{ $_ := set $volumes .name true }}{{ end }}
{{- range $v.extraVolumeMounts }}
{{- if not (hasKey $volumes .name) }}{{ fail (printf "extraVolumeMounts: %q is not among extraVolumes" .name) }}{{ end }}
{{- end }}
{{- if and (not $v.secrets.existingSecret) (not (and $v.trial.database.enabled $v.trial.broker.enabled)) }}
{{- fail "secrets.existingSecret: name the Secret with the passwords, or turn both trial.database and trial.broker on" }}
{{- end }}
{{- if and $v.trial.existingSecret (not (or $v.trial.database.enabled $v.trial.broker.enabled)) }}
{{- fail "trial.existingSecret: it has the passwords of the trial servers, and neither is on" }}
{{- end }}
{{- if and $net.enabled (ne $v.files.store "database") (not $v.files.to) }}
{{- fail "files.to: say where the store of files is, or set networkPolicy.enabled to false" }}
{{- end }}
{{- if ne (empty $keys.s3AccessKeyId) (empty $keys.s3SecretAccessKey) }}
{{- fail "secrets.keys: s3AccessKeyId and s3SecretAccessKey are given in pairs" }}
{{- end }}
{{- if and $keys.s3AccessKeyId (not $v.secrets.existingSecret) }}
{{- fail "secrets.keys.s3AccessKeyId: it is a key of secrets.existingSecret, which is empty" }}
{{- end }}
{{- if not $v.trial.database.enabled }}
{{- if eq (empty $v.database.url) (empty $keys.databaseUrl) }}
{{- fail "database.url: give it, or secrets.keys.databaseUrl (not both), or turn trial.database on" }}
{{- end }}
{{- if and $net.enabled (not $net.database.to) }}
{{- fail "networkPolicy.database.to: say where the database is, or set networkPolicy.enabled to false" }}
{{- end }}
{{- else if or $v.database.url $keys.databaseUrl }}
{{- fail "database.url and secrets.keys.databaseUrl must be empty where trial.database is on" }}
{{- end }}
{{- if or (ne (empty $keys.apiDatabaseUrl) (empty $keys.workerDatabaseUrl)) (ne (empty $keys.apiDatabasePassword) (empty $keys.workerDatabasePassword)) }}
{{- fail "secrets.keys: apiDatabaseUrl and workerDatabaseUrl, apiDatabasePassword and workerDatabasePassword are given in pairs" }}
{{- end }}
{{- if and (or $keys.apiDatabaseUrl $keys.apiDatabasePassword) $v.trial.database.enabled }}
{{- fail "secrets.keys: the trial database makes the passwords of API and workers itself" }}
{{- end }}
{{- if ne (empty $keys.apiDatabaseUrl) (or (empty $keys.databaseUrl) (empty (include "onward.roles" .))) }}
{{- fail "secrets.keys.apiDatabaseUrl: it goes with databaseUrl, and apiDatabasePassword with database.url" }}
{{- end }}
{{- if and $keys.receiptKey (not $v.secrets.existingSecret) }}
{{- fail "secrets.keys.receiptKey: it is a key of secrets.existingSecret, which is empty" }}
{{- end }}
{{- if and $keys.serveSecret (not $v.secrets.existingSecret) }}
{{- fail "secrets.keys.serveSecret: it is a key of secrets.existingSecret, which is empty" }}
{{- end }}
{{- if not $v.trial.broker.enabled }}
{{- if eq (empty $v.broker.url) (empty $keys.redisUrl) }}
{{- fail "broker.url: give it, or secrets.keys.redisUrl (not both), or turn trial.broker on" }}
{{- end }}
{{- if and $net.enabled (not $net.broker.to) }}
{{- fail "networkPolicy.broker.to: say where the broker is, or set networkPolicy.enabled to false" }}
{{- end }}
{{- else if or $v.broker.url $keys.redisUrl }}
{{- fail "broker.url and secrets.keys.redisUrl must be empty where trial.broker is on" }}
{{- end }}
{{- if and (not $v.trial.database.enabled) (not $v.trial.broker.enabled) (not (or $keys.databaseUrl $keys.databasePassword $keys.redisUrl $keys.redisPassword)) }}
{{- fail "secrets.keys: all are empty, so neither the database nor the broker would have a password" }}
{{- end }}
{{- if and $net.enabled $v.telemetry.endpoint (not $net.otlp.to) }}
{{- fail "networkPolicy.otlp.to: say where the collector of telemetry.endpoint is" }}
{{- end }}
{{- if and $net.enabled (not $net.dns) }}
{{- fail "networkPolicy.dns: say who answers DNS" }}
{{- end }}
{{- if and (include "onward.fills" .) $v.hub.offline }}
{{- fail "hub.offline: a model has weights.fillFrom, which is downloaded from the hub" }}
{{- end }}
{{- if and $net.enabled (or (include "onward.usesHub" .) (include "onward.fills" .)) (not $v.hub.offline) (not $net.hub.to) }}
{{- fail "networkPolicy.hub.to: say where the hub is, or set hub.offline to true" }}
{{- end }}
{{- if and (include "onward.usesHub" .) $v.hub.offline (not $v.hub.cacheClaim) }}
{{- fail "hub.cacheClaim: hub.offline needs a claim that holds the models already" }}
{{- end }}
{{- if and $v.keda.enabled $keys.databaseUrl (not $v.keda.connectionKey) }}
{{- fail "keda.connectionKey: KEDA cannot read secrets.keys.databaseUrl; name a key with a libpq connection string" }}
{{- end }}
{{- if and $v.keda.enabled $v.keda.connectionKey (not $v.secrets.existingSecret) }}
{{- fail "keda.connectionKey: it is a key of secrets.existingSecret, which is empty" }}
{{- end }}
{{- if gt (int $v.keda.minReplicas) (int $v.keda.maxReplicas) }}{{ fail "keda.minReplicas is above keda.maxReplicas" }}{{ end }}
{{- with $v.api.autoscaling }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}{{ fail "api.autoscaling.minReplicas is above its maxReplicas" }}{{ end }}
{{- end }}
{{- if and (eq (int $v.worker.rollout.maxSurge) 0) (eq (int $v.worker.rollout.maxUnavailable) 0) }}
{{- fail "worker.rollout: maxSurge and maxUnavailable are both 0, so no update could proceed" }}
{{- end }}
{{- $slugs := dict }}
{{- range $v.models }}
{{- $slug := include "onward.slug" .name }}
{{- if and .weights .weights.fillFrom (eq .path ".") }}
{{- fail (printf "models: %q is in the root of its claim, and weights.fillFrom fills a folder: give it a path" .name) }}
{{- end }}
{{- if hasKey $slugs $slug }}{{ fail (printf "models: %q and %q have the same name or the name %q in the cluster" .name (get $slugs $slug) $slug) }}{{ end }}
{{- $_ := set $slugs $slug .name }}
{{- end }}
{{- end }}
