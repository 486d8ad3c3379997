{{/* Names, labels and images. A name that would be too long, or that had to be changed, carries a hash of the whole. */}}

{{/* A string cut to 52 characters: room for what StatefulSets, Deployments and KEDA append to it. */}}
{{- define "onward.fit" -}}
{{- if le (len .) 52 }}{{ . }}{{ else }}{{ printf "%s-%s" (. | trunc 43 | trimSuffix "-" | trimSuffix ".") (. | sha256sum | trunc 8) }}{{ end }}
{{- end }}

{{- define "onward.base" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride }}
{{- else if contains "onward" .Release.Name }}{{ .Release.Name }}
{{- else }}{{ .Release.Name }}-onward{{ end }}
{{- end }}

{{/* (root, suffix) -> the name of an object. Dots are for models only, so a name can be a Service's too. */}}
{{- define "onward.name" -}}
{{- $root := index . 0 }}
{{- include "onward.fit" (printf "%s-%s" (include "onward.base" $root | replace "." "-") (index . 1)) }}
{{- end }}

{{/* A model's public name -> what is safe in names of objects; names that differ give slugs that differ. */}}
{{- define "onward.slug" -}}
{{- $plain := . | lower | replace "." "-" | replace "/" "-" | replace "_" "-" | replace "+" "-" }}
{{- $plain = regexReplaceAll "-+" $plain "-" | trimSuffix "-" }}
{{- if and (eq $plain .) (le (len .) 30) }}{{ . }}
{{- else }}{{ printf "%s-%s" ($plain | trunc 21 | trimSuffix "-") (. | sha256sum | trunc 8) }}{{ end }}
{{- end }}

{{/* (root, component) */}}
{{- define "onward.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: onward
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "onward.labels" -}}
{{- $root := index . 0 -}}
{{ include "onward.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: onward
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* (root, slug): what tells one model's workers from another's */}}
{{- define "onward.workerSelector" -}}
{{ include "onward.selector" (list (index . 0) "worker") }}
onward/model: {{ index . 1 | quote }}
{{- end }}

{{/* (root, `api` or a device) -> image and pull policy of a container. */}}
{{- define "onward.image" -}}
{{- $image := (index . 0).Values.image }}{{ $kind := index . 1 }}
{{- $name := ternary $image.api $image.worker (eq $kind "api") }}
{{- with $image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end }}
{{- $tag := printf ":%s%s" ($image.tag | default (index . 0).Chart.AppVersion) (ternary "" (printf "-%s" $kind) (eq $kind "api")) -}}
image: {{ $name }}{{ with get $image.digests $kind }}@{{ . }}{{ else }}{{ $tag }}{{ end }}
imagePullPolicy: {{ ternary "Never" $image.pullPolicy $image.preloaded }}
{{- end }}

{{/* (root, model) -> the model with the defaults, its slug and its source, as JSON */}}
{{- define "onward.model" -}}
{{- $root := index . 0 }}
{{- $model := mergeOverwrite (deepCopy $root.Values.modelDefaults) (deepCopy (index . 1)) }}
{{- $slug := include "onward.slug" $model.name }}
{{- $_ := set $model "slug" $slug }}
{{- $_ := set $model "object" (include "onward.name" (list $root (printf "worker-%s" $slug))) }}
{{- $_ := set $model "source" ($model.hubId | default (printf "/models/%s" $slug)) }}
{{- toJson $model }}
{{- end }}

{{/* Whether some model comes from the hub: "yes" or nothing */}}
{{- define "onward.usesHub" -}}
{{- range .Values.models }}{{ if .hubId }}yes{{ break }}{{ end }}{{ end }}
{{- end }}

{{/* Whether some model's claim is filled from the hub: "yes" or nothing */}}
{{- define "onward.fills" -}}
{{- range .Values.models }}{{ if and .weights .weights.fillFrom }}yes{{ break }}{{ end }}{{ end }}
{{- end }}

{{/* weight: annotations of what runs before install and upgrade. A failed hook stays, for its log. */}}
{{- define "onward.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
