{{/* Variables of a worker. Input: root, pool, worker. */}}
{{- define "lorikeet.workerEnv" -}}
{{- $pool := .pool -}}
{{- $worker := .worker -}}
{{- $device := "cpu" -}}
{{- if eq $worker.engine "vllm" }}{{ $device = "auto" -}}
{{- else if gt (int $worker.gpus) 0 }}{{ $device = "cuda" }}{{ end -}}
- { name: LORIKEET_ENGINE, value: {{ $worker.engine }} }
- { name: LORIKEET_MODEL, value: {{ $pool.base | quote }} }
- { name: LORIKEET_DEVICE, value: {{ $device }} }
- { name: LORIKEET_ADAPTER_STORE, value: /cache/adapters }
{{- with $pool.servedName }}
- { name: LORIKEET_SERVED_NAME, value: {{ . | quote }} }
{{- end }}
{{- with $pool.adapters }}
- { name: LORIKEET_ADAPTERS, value: {{ join " " . | quote }} }
{{- end }}
{{- $roots := default list $pool.adapterRoots }}
{{- if $worker.adapters.existingClaim }}{{ $roots = prepend $roots "/adapters" }}{{ end }}
{{- with $roots }}
- { name: LORIKEET_ADAPTER_ROOTS, value: {{ uniq . | join " " | quote }} }
{{- end }}
{{- /* The kernel shows all cores of the node to a container, whatever its limit. */}}
{{- if and (dig "limits" "cpu" "" $worker.resources) (not $worker.settings.threads) }}
- name: LORIKEET_THREADS
  valueFrom: { resourceFieldRef: { containerName: worker, resource: limits.cpu } }
{{- end }}
{{- with .root.Values.hub.existingSecret }}
- name: HF_TOKEN
  valueFrom: { secretKeyRef: { name: {{ . }}, key: {{ $.root.Values.hub.tokenKey }} } }
{{- end }}
{{- end }}

{{/* Resources of a worker, with its GPUs. Input: its values. */}}
{{- define "lorikeet.workerResources" -}}
{{- $resources := deepCopy .resources -}}
{{- if gt (int .gpus) 0 -}}
{{- $resources = mergeOverwrite $resources (dict "limits" (dict .gpuResource (int .gpus))) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}
