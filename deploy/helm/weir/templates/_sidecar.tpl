{{- /*
Templates for the charts of others, which call them with this chart's context, `.Subcharts.weir`. Each may be empty:

  metadata of the pod   labels: weir.podLabels   annotations: weir.podAnnotations
  initContainers        weir.initContainers      native sidecar; put it first, so that your init containers can use it
  containers            weir.containers          where it cannot be native
  env of your container weir.env                 OPENAI_BASE_URL
  volumes               weir.volumes
*/}}

{{- define "weir.podLabels" -}}
weir: {{ include "weir.fullname" . }}
{{- end }}

{{- define "weir.podAnnotations" -}}
{{- if .Values.scrapeAnnotations }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .Values.ports.admin | quote }}
prometheus.io/path: /metrics
{{- end }}
{{- if .Values.restartOnChange }}
checksum/weir: {{ printf "%s%s" (include "weir.config" .) (toYaml .Values.files) | sha256sum }}
{{- end }}
{{- end }}

{{- define "weir.initContainers" -}}
{{- if include "weir.isNative" . }}
- {{ include "weir.container" . | nindent 2 | trim }}
  restartPolicy: Always
{{- end }}
{{- end }}

{{- define "weir.containers" -}}
{{- if not (include "weir.isNative" .) }}
- {{ include "weir.container" . | nindent 2 | trim }}
  {{- include "weir.wait" (dict "seconds" .Values.plainPreStopSeconds) | nindent 2 }}
{{- end }}
{{- end }}

{{- define "weir.env" -}}
- name: OPENAI_BASE_URL
  value: http://127.0.0.1:{{ .Values.ports.data }}/v1
{{- end }}

{{- define "weir.volumes" -}}
- name: weir-config
  configMap: {name: {{ include "weir.fullname" . }}}
{{- with .Values.secret.name }}
- name: weir-secrets
  secret: {secretName: {{ . }}}
{{- end }}
- name: weir-tmp
  emptyDir: {medium: Memory, sizeLimit: 32Mi}
{{- end }}

{{- define "weir.container" -}}
name: weir
image: {{ include "weir.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - {name: WEIR_CONFIG, value: /config/config.yaml}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  {{- if eq .Values.mode "gateway" }}
  - {name: weir, containerPort: {{ .Values.ports.data }}}
  {{- end }}
  - {name: weir-admin, containerPort: {{ .Values.ports.admin }}}
startupProbe:  # the app starts when it has succeeded
  httpGet: {path: /readyz, port: weir-admin}
  periodSeconds: 1
  timeoutSeconds: 2
  failureThreshold: 60
readinessProbe:  # says nothing of upstreams or Redis: their outage must not take the app away
  httpGet: {path: /readyz, port: weir-admin}
  periodSeconds: 5
  timeoutSeconds: 2
livenessProbe:
  httpGet: {path: /livez, port: weir-admin}
  periodSeconds: 10
  timeoutSeconds: 5
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
terminationMessagePolicy: FallbackToLogsOnError
volumeMounts:  # folders, never `subPath`: only those change while the pod runs
  - {name: weir-config, mountPath: /config, readOnly: true}
  {{- if .Values.secret.name }}
  - {name: weir-secrets, mountPath: /secrets, readOnly: true}
  {{- end }}
  - {name: weir-tmp, mountPath: /tmp}
{{- end }}

{{- /* Kubernetes before 1.30 knows no `sleep` action, and the image has no shell that it could rely on. */}}
{{- define "weir.wait" -}}
lifecycle:
  preStop:
    exec: {command: [python, -IS, -c, "import time; time.sleep({{ .seconds }})"]}
{{- end }}
