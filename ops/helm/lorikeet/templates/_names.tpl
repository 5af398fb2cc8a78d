{{/* Short names leave room for the parts below in the 63 characters of a Service's name. */}}
{{- define "lorikeet.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 24 | trimSuffix "-" -}}
{{- end }}

{{/* Name of an object. Input: root, pool (optional), part. */}}
{{- define "lorikeet.name" -}}
{{- $parts := list (include "lorikeet.fullname" .root) -}}
{{- with .pool }}{{ $parts = append $parts .name }}{{ end -}}
{{- append $parts .part | join "-" -}}
{{- end }}

{{/* Labels by which selectors find pods. Input: root, component, pool and worker (optional). */}}
{{- define "lorikeet.selector" -}}
app.kubernetes.io/name: lorikeet
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
lorikeet/pool: {{ .name | quote }}
{{- end }}
{{- with .worker }}
lorikeet/worker: {{ .name | quote }}
{{- end }}
{{- end }}

{{- define "lorikeet.labels" -}}
{{ include "lorikeet.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Input: root, image with repository and tag. */}}
{{- define "lorikeet.image" -}}
{{- $registry := .root.Values.images.registry -}}
{{- $name := printf "%s:%s" .image.repository (default .root.Chart.AppVersion .image.tag) -}}
{{- ternary (printf "%s/%s" (trimSuffix "/" $registry) $name) $name (ne $registry "") -}}
{{- end }}

{{/* Image of a worker, by its engine and GPUs. Input: root, worker. */}}
{{- define "lorikeet.workerImage" -}}
{{- $images := .root.Values.images -}}
{{- $image := $images.worker -}}
{{- if eq .worker.engine "vllm" }}{{ $image = $images.workerVllm -}}
{{- else if gt (int .worker.gpus) 0 }}{{ $image = $images.workerCuda }}{{ end -}}
{{- if .worker.image.repository }}{{ $image = .worker.image }}
{{- else if .worker.image.tag }}{{ $image = merge (dict "tag" .worker.image.tag) $image }}{{ end -}}
{{- include "lorikeet.image" (dict "root" .root "image" $image) -}}
{{- end }}

{{/* The values `api` or `control` of a pool, over the common ones. Input: root, pool, part. */}}
{{- define "lorikeet.partOfPool" -}}
{{- $own := default dict (get .pool .part) | deepCopy -}}
{{- mergeOverwrite (get .root.Values .part | deepCopy) $own | toYaml -}}
{{- end }}

{{/* The values of one worker over the common ones. Input: root, worker. */}}
{{- define "lorikeet.worker" -}}
{{- $worker := mergeOverwrite (deepCopy .root.Values.worker) (deepCopy .worker) -}}
{{- $shared := int (default 1 $worker.settings.tensor_parallel) | mul (int (default 1 $worker.settings.pipeline_parallel)) -}}
{{- if and (eq $worker.engine "vllm") (gt (int $shared) (int (max 1 $worker.gpus))) -}}
{{- fail (printf "worker %s: tensor_parallel x pipeline_parallel is %d, but gpus is %d" $worker.name (int $shared) (int $worker.gpus)) -}}
{{- end -}}
{{- toYaml $worker -}}
{{- end }}
