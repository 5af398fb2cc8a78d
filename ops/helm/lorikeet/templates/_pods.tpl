{{/* The parts of a pod's specification that all of Lorikeet's pods share. Input: root, values. */}}
{{- define "lorikeet.podSpec" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- if .root.Values.fixedUser }}
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* Labels and annotations of a pod. Input: root, component, pool, worker, values. */}}
{{- define "lorikeet.podMetadata" -}}
labels:
  {{- include "lorikeet.labels" . | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .values.podAnnotations }}
annotations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "lorikeet.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{/* Probes by `lorikeet health`, which asks Redis. While Redis is away, a process that runs must not be
killed, so liveness waits for ten minutes. Input: process, startSeconds. */}}
{{- define "lorikeet.healthProbes" -}}
startupProbe:
  exec: { command: [lorikeet, health, {{ .process }}] }
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: {{ divf .startSeconds 10 | ceil | int }}
readinessProbe:
  exec: { command: [lorikeet, health, {{ .process }}] }
  periodSeconds: 30
  timeoutSeconds: 10
livenessProbe:
  exec: { command: [lorikeet, health, {{ .process }}] }
  periodSeconds: 60
  timeoutSeconds: 10
  failureThreshold: 10
{{- end }}

{{/* Seconds that a process has to drain. Input: its settings. */}}
{{- define "lorikeet.drainSeconds" -}}
{{- hasKey . "drain_s" | ternary (get . "drain_s") 30 | ceil | int -}}
{{- end }}
