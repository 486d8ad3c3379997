{{/* Egress rules. A rule is left out rather than empty: an empty list of peers would mean everyone. */}}

{{/* {to, port} */}}
{{- define "onward.rule" -}}
- to: {{- toYaml .to | nindent 4 }}
  ports: [{port: {{ .port }}, protocol: TCP}]
{{- end }}

{{- define "onward.dnsRule" -}}
- to: {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
  {{- range .Values.networkPolicy.dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
  {{- end }}
{{- end }}

{{- define "onward.databaseRule" -}}
{{- if .Values.trial.database.enabled -}}
- to:
    - podSelector:
        matchLabels: {{- include "onward.selector" (list . "postgres") | nindent 10 }}
  ports: [{port: 5432, protocol: TCP}]
{{- else }}{{ include "onward.rule" .Values.networkPolicy.database }}{{ end }}
{{- end }}

{{- define "onward.brokerRule" -}}
{{- if .Values.trial.broker.enabled -}}
- to:
    - podSelector:
        matchLabels: {{- include "onward.selector" (list . "valkey") | nindent 10 }}
  ports: [{port: 6379, protocol: TCP}]
{{- else }}{{ include "onward.rule" .Values.networkPolicy.broker }}{{ end }}
{{- end }}
