{{- define "weir.fullname" -}}
{{- default (printf "%s-weir" .Release.Name | replace "weir-weir" "weir") .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "weir.selectorLabels" -}}
app.kubernetes.io/name: weir
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "weir.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "weir.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "weir.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- /* "true", or empty: whether Weir is an init container that stays. */}}
{{- define "weir.isNative" -}}
{{- $native := .Values.nativeSidecar }}
{{- if eq (toString $native) "auto" }}{{ $native = semverCompare ">=1.29.0-0" .Capabilities.KubeVersion.Version }}{{ end }}
{{- if and (eq .Values.mode "sidecar") $native }}true{{ end }}
{{- end }}

{{- /* What the ConfigMap holds as config.yaml. The server block is the chart's, since ports and probes must agree with it. */}}
{{- define "weir.config" -}}
{{- if regexMatch "(?m)^[\"']?server[\"']?\\s*:" .Values.config }}
{{- fail "config: the chart writes the `server` block; put its keys into the value `server`, and addresses into `ports`" }}
{{- end -}}
server:
  listen: {{ printf "%s:%v" (ternary "" "127.0.0.1" (eq .Values.mode "gateway")) .Values.ports.data | quote }}
  admin: {{ printf ":%v" .Values.ports.admin | quote }}
  {{- range $key, $value := .Values.server }}
  {{ $key }}: {{ $value }}
  {{- end }}
{{ .Values.config | trim }}
{{- end }}
