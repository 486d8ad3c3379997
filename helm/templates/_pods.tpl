{{/* What every pod of the chart has. */}}

{{/* (root, user, priority class of its own): who a pod is, and how it stands to others. */}}
{{- define "onward.podSecurity" -}}
{{- $values := (index . 0).Values -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with ternary (last .) "" (gt (len .) 2) | default $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- if $values.fixedIds }}
  runAsUser: {{ index . 1 }}
  runAsGroup: {{ index . 1 }}
  fsGroup: {{ index . 1 }}
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "onward.containerSecurity" -}}
securityContext:
  runAsNonRoot: true
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* (root, selector as YAML) */}}
{{- define "onward.spread" -}}
{{- $selector := index . 1 }}
{{- with (index . 0).Values.topologySpread }}
topologySpreadConstraints:
{{- range . }}
  - maxSkew: {{ .maxSkew }}
    topologyKey: {{ .topologyKey }}
    whenUnsatisfiable: {{ .whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
{{- end }}
{{- end }}
{{- end }}

{{/* (root, component): the files under /run/secrets/onward: of the existing Secret, or of the trial's generated one. */}}
{{- define "onward.secretVolume" -}}
{{- $component := index . 1 }}
{{- with index . 0 }}
{{- $keys := .Values.secrets.keys }}
{{- $trial := include "onward.trialSecret" . }}
{{- $secret := ternary $trial .Values.secrets.existingSecret .Values.trial.database.enabled }}
{{- $url := $keys.databaseUrl }}{{ $password := $keys.databasePassword }}
{{- $api := $keys.apiDatabasePassword }}{{ $worker := $keys.workerDatabasePassword }}
{{- if .Values.trial.database.enabled }}
{{- $url = "" }}{{ $password = "databasePassword" }}{{ $api = "apiDatabasePassword" }}{{ $worker = "workerDatabasePassword" }}
{{- end }}
{{- if eq $component "api" }}{{ $url = $keys.apiDatabaseUrl | default $url }}{{ $password = $api | default $password }}{{ end }}
{{- if eq $component "worker" }}{{ $url = $keys.workerDatabaseUrl | default $url }}{{ $password = $worker | default $password }}{{ end }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
{{- if $url }}
      - secret: {name: {{ $secret }}, items: [{key: {{ $url }}, path: onward_database_url}]}
{{- else if $password }}
      - secret: {name: {{ $secret }}, items: [{key: {{ $password }}, path: onward_database_password}]}
{{- end }}
{{- if and $api (eq $component "migrate") }}
      - secret: {name: {{ $secret }}, items: [{key: {{ $api }}, path: onward_api_database_password}]}
      - secret: {name: {{ $secret }}, items: [{key: {{ $worker }}, path: onward_worker_database_password}]}
{{- end }}
{{- if and $keys.receiptKey (eq $component "worker") }}
      - secret: {name: {{ .Values.secrets.existingSecret }}, items: [{key: {{ $keys.receiptKey }}, path: onward_receipt_key}]}
{{- end }}
{{- with include "onward.serves" . }}
{{- if has $component (list "api" "worker") }}
      - secret: {{ . }}
{{- end }}
{{- end }}
{{- if .Values.trial.broker.enabled }}
      - secret: {name: {{ $trial }}, items: [{key: redisPassword, path: onward_redis_password}]}
{{- else if $keys.redisUrl }}
      - secret: {name: {{ .Values.secrets.existingSecret }}, items: [{key: {{ $keys.redisUrl }}, path: onward_redis_url}]}
{{- else if $keys.redisPassword }}
      - secret: {name: {{ .Values.secrets.existingSecret }}, items: [{key: {{ $keys.redisPassword }}, path: onward_redis_password}]}
{{- end }}
{{- if and $keys.s3AccessKeyId (ne $component "migrate") }}
      - secret: {name: {{ .Values.secrets.existingSecret }}, items: [{key: {{ $keys.s3AccessKeyId }}, path: onward_s3_access_key_id}]}
      - secret: {name: {{ .Values.secrets.existingSecret }}, items: [{key: {{ $keys.s3SecretAccessKey }}, path: onward_s3_secret_access_key}]}
{{- end }}
{{- end }}
{{- end }}

{{/* The secret by which workers know the API, as an item of a projected volume; nothing where no chats are served. */}}
{{- define "onward.serves" -}}
{{- with .Values.secrets.keys.serveSecret -}}
{name: {{ $.Values.secrets.existingSecret }}, items: [{key: {{ . }}, path: onward_serve_secret}]}
{{- else }}{{- if or .Values.trial.database.enabled .Values.trial.broker.enabled -}}
{name: {{ include "onward.trialSecret" . }}, items: [{key: serveSecret, path: onward_serve_secret}]}
{{- end }}{{- end }}
{{- end }}

{{/* Volumes of the hub's cache and token, for the API and for workers of a hub model. */}}
{{- define "onward.hubVolumes" -}}
- name: hub
{{- if .Values.hub.cacheClaim }}
  persistentVolumeClaim: {claimName: {{ .Values.hub.cacheClaim }}}
{{- else }}
  emptyDir: {sizeLimit: {{ .Values.hub.cacheSize }}}
{{- end }}
{{- with .Values.hub.tokenSecret }}
- name: hub-token
  secret: {secretName: {{ . }}, defaultMode: 0440, items: [{key: {{ $.Values.hub.tokenKey }}, path: token}]}
{{- end }}
{{- end }}

{{- define "onward.hubMounts" -}}
- {name: hub, mountPath: /var/cache/huggingface}
{{- if .Values.hub.tokenSecret }}
- {name: hub-token, mountPath: /run/secrets/hub, readOnly: true}
{{- end }}
{{- end }}

{{/* (root, whether this process uses the hub) */}}
{{- define "onward.hubEnv" -}}
{{- $root := index . 0 }}
- {name: HF_HUB_OFFLINE, value: {{ ternary "0" "1" (and (index . 1) (not $root.Values.hub.offline)) | quote }}}
{{- if index . 1 }}
- {name: HF_HOME, value: /var/cache/huggingface}
{{- if $root.Values.hub.tokenSecret }}
- {name: HF_TOKEN_PATH, value: /run/secrets/hub/token}
{{- end }}
{{- end }}
{{- end }}

{{/* (path, port, period, timeout, failures) */}}
{{- define "onward.httpProbe" -}}
httpGet: {path: {{ index . 0 }}, port: {{ index . 1 }}}
periodSeconds: {{ index . 2 }}
timeoutSeconds: {{ index . 3 }}
failureThreshold: {{ index . 4 }}
{{- end }}

{{/* A quantity of bytes -> whole MiB, rounded up. */}}
{{- define "onward.mebibytes" -}}
{{- $units := dict "" 1 "k" 1000 "K" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "P" 1000000000000000
  "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "E" 1000000000000000000 "Ei" 1152921504606846976 }}
{{- $size := . | toString }}
{{- $unit := regexFind "[A-Za-z]*$" $size }}
{{- ceil (divf (mulf (trimSuffix $unit $size | float64) (get $units $unit)) 1048576) | int64 }}
{{- end }}

{{/*
(resources, sizes of the pod's volumes on the node's disk) -> its container's resources: the node's disk is asked for as much
as they may hold, with 128 MiB for logs, unless the resources name `ephemeral-storage` themselves.
*/}}
{{- define "onward.resources" -}}
{{- $resources := deepCopy (index . 0) }}
{{- $total := 128 }}
{{- range index . 1 }}{{ $total = add $total (include "onward.mebibytes" .) }}{{ end }}
{{- range $kind := list "requests" "limits" }}
{{- $given := get $resources $kind | default dict }}
{{- $_ := set $resources $kind (merge $given (dict "ephemeral-storage" (printf "%dMi" $total))) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{/* Every model's source by its name, as JSON: what ONWARD_MODELS has where a process knows all of them. */}}
{{- define "onward.sources" -}}
{{- $sources := dict }}
{{- range .Values.models }}{{ $_ := set $sources .name (include "onward.model" (list $ .) | fromJson).source }}{{ end }}
{{- toJson $sources }}
{{- end }}

{{/* Mounts and volumes of every model in a claim. */}}
{{- define "onward.modelMounts" -}}
{{- range .Values.models }}{{ if .path }}
{{- $slug := include "onward.slug" .name }}
- name: weights-{{ $slug }}
  mountPath: /models/{{ $slug }}
  {{- if ne .path "." }}
  subPath: {{ .path | quote }}
  {{- end }}
  readOnly: true
{{- end }}{{ end }}
{{- end }}

{{- define "onward.modelVolumes" -}}
{{- range .Values.models }}{{ if .path }}
- name: weights-{{ include "onward.slug" .name }}
  persistentVolumeClaim: {claimName: {{ .weights.existingClaim }}, readOnly: true}
{{- end }}{{ end }}
{{- end }}
