{{- define "dinoserve.name" -}}
{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- end }}

{{- define "dinoserve.selector" -}}
app.kubernetes.io/name: dinoserve
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dinoserve.labels" -}}
{{ include "dinoserve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "dinoserve.balancerSelector" -}}
app.kubernetes.io/name: dinoserve-balancer
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dinoserve.balancerLabels" -}}
{{ include "dinoserve.balancerSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
