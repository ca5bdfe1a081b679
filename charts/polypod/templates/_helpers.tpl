{{/* Names: RELEASE-operator, RELEASE-api, RELEASE-routing. */}}
{{- define "polypod.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "polypod.routingName" -}}
{{- .Values.routing.name | default (printf "%s-routing" (include "polypod.name" .)) -}}
{{- end }}

{{/* Labels: call with (list . "operator"). */}}
{{- define "polypod.selector" -}}
app.kubernetes.io/name: polypod-{{ index . 1 }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
{{- end }}

{{- define "polypod.meta" -}}
labels:
  {{- include "polypod.selector" . | nindent 2 }}
  app.kubernetes.io/part-of: polypod
  app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
  {{- with (index . 0).Values.extraLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with (index . 0).Values.extraAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* As polypod.meta, for what holds state: helm deletes it neither on uninstall nor when the values leave it out. */}}
{{- define "polypod.keptMeta" -}}
{{- $meta := include "polypod.meta" . | fromYaml }}
{{- $_ := set $meta "annotations" (merge (dict "helm.sh/resource-policy" "keep") (default dict $meta.annotations)) }}
{{- toYaml $meta }}
{{- end }}

{{/* What holds state with these values, as a list: the objects that polypod.keptMeta is for. */}}
{{- define "polypod.kept" -}}
{{- $name := include "polypod.name" . }}
{{- $api := .Values.executionApi }}
{{- if and (eq $api.mode "standalone") (not $api.postgresql.existingSecret) $api.persistence.enabled (not $api.persistence.existingClaim) }}
- {kind: PersistentVolumeClaim, name: {{ $name }}-api, holds: "XComs, variables and task states"}
{{- end }}
{{- if and .Values.tls.enabled (not .Values.tls.certManager.issuerRef) }}
- {kind: Secret, name: {{ $name }}-tls, holds: the certificate that running task pods connect to}
- {kind: Secret, name: {{ $name }}-authority, holds: the CA that running task pods trust}
{{- end }}
{{- end }}

{{/* An image of ours: call with (list . .Values.operator.image). */}}
{{- define "polypod.image" -}}
{{- $values := (index . 0).Values -}}
{{- if $values.registry }}{{ trimSuffix "/" $values.registry }}/{{ end }}{{ (index . 1).repository }}:{{ (index . 1).tag | default $values.tag | default (index . 0).Chart.AppVersion }}
{{- end }}

{{- define "polypod.executionApiUrl" -}}
{{- if eq .Values.executionApi.mode "airflow" -}}
{{- required "executionApi.airflow.url is needed with executionApi.mode airflow" .Values.executionApi.airflow.url -}}
{{- else -}}
http{{ if .Values.tls.enabled }}s{{ end }}://{{ include "polypod.name" . }}-api.{{ .Release.Namespace }}.svc:8080/execution/
{{- end -}}
{{- end }}

{{- define "polypod.tlsNames" -}}
{{- range $part := list "operator" "api" }}
- {{ include "polypod.name" $ }}-{{ $part }}.{{ $.Release.Namespace }}.svc
- {{ include "polypod.name" $ }}-{{ $part }}.{{ $.Release.Namespace }}.svc.cluster.local
{{- end }}
{{- end }}

{{- define "polypod.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a pod may run, and with what images: call with (list . .Values.operator). */}}
{{- define "polypod.placement" -}}
{{- with (index . 0).Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with (index . 1).priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with (index . 1).nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with (index . 1).tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with (index . 1).affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}
