{{/* Settings as variables. `toJson` writes numbers without an exponent. Input: settings by name. */}}
{{- define "lorikeet.settings" -}}
{{- range $name, $value := . }}
{{- if not (kindIs "invalid" $value) }}
- name: LORIKEET_{{ upper $name }}
  {{- if kindIs "slice" $value }}
  value: {{ join " " $value | quote }}
  {{- else if kindIs "string" $value }}
  value: {{ quote $value }}
  {{- else }}
  value: {{ toJson $value | quote }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Variables of every process: Redis and the pool. Kubernetes puts the password into the URL.
Input: root, pool. */}}
{{- define "lorikeet.poolEnv" -}}
{{- $redis := mergeOverwrite (deepCopy .root.Values.redis) (default dict .pool.redis | deepCopy) -}}
{{- if $redis.existingSecret }}
- name: LORIKEET_REDIS_URL
  valueFrom: { secretKeyRef: { name: {{ $redis.existingSecret }}, key: {{ $redis.urlKey }} } }
{{- else if .root.Values.redis.trial.enabled }}
- name: REDIS_PASSWORD
  valueFrom: { secretKeyRef: {{ include "lorikeet.redisPassword" .root }} }
- name: LORIKEET_REDIS_URL
  value: redis://:$(REDIS_PASSWORD)@{{ include "lorikeet.name" (dict "root" .root "part" "redis") }}:6379/0
{{- else }}
{{- fail (printf "pool %s has no Redis: set redis.existingSecret to a Secret with its URL, or redis.trial.enabled to true" .pool.name) }}
{{- end }}
- name: LORIKEET_POOL
  value: {{ .pool.name | quote }}
{{- include "lorikeet.settings" .root.Values.settings }}
{{- end }}

{{- define "lorikeet.redisPassword" -}}
{{- $trial := .Values.redis.trial -}}
{ name: {{ default (include "lorikeet.name" (dict "root" . "part" "redis")) $trial.existingSecret }}, key: {{ $trial.passwordKey }} }
{{- end }}

{{/* A Secret's key as a variable of a front end. Input: root, name, key, optional. */}}
{{- define "lorikeet.authEnv" -}}
- name: {{ .name }}
  valueFrom: { secretKeyRef: { name: {{ .root.Values.auth.existingSecret }}, key: {{ .key }}, optional: {{ .optional }} } }
{{- end }}
