{{/* The chart's name, for labels. */}}
{{- define "edgefolio.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 42 | trimSuffix "-" }}
{{- end }}

{{/* Beginning of the names of all objects. */}}
{{- define "edgefolio.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 42 | trimSuffix "-" }}
{{- else if contains (include "edgefolio.name" .) .Release.Name }}
{{- .Release.Name | trunc 42 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "edgefolio.name" .) | trunc 42 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Name of the operator's own objects. */}}
{{- define "edgefolio.operator" -}}
{{- printf "%s-operator" (include "edgefolio.fullname" .) }}
{{- end }}

{{- define "edgefolio.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "edgefolio.operator" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "edgefolio.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "edgefolio.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | quote }}
app.kubernetes.io/part-of: edgefolio
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels by which the operator's pod is found; they never change. */}}
{{- define "edgefolio.selector" -}}
app.kubernetes.io/name: {{ include "edgefolio.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Annotations of an object, below its metadata: those of all objects and its own. Takes a list: the root, its own. */}}
{{- define "edgefolio.annotations" -}}
{{- $root := index . 0 }}
{{- with merge (dict) (index . 1) $root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{/* An image by name. Takes a list: the root, the image. */}}
{{- define "edgefolio.image" -}}
{{- $root := index . 0 }}
{{- $image := index . 1 }}
{{- if $image.digest }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{/* Namespace of the test's portfolio. */}}
{{- define "edgefolio.testNamespace" -}}
{{- default (first (append .Values.watchNamespaces .Release.Namespace)) .Values.tests.namespace }}
{{- end }}

{{/* Rights of the operator: one source for chart and kustomize, see files/rights.yaml. */}}
{{- define "edgefolio.operatorRules" -}}
{{- $rights := .Files.Get "files/rights.yaml" | fromYaml }}
{{- toYaml (ternary $rights.operatorNamespaced $rights.operator (gt (len .Values.watchNamespaces) 0)) }}
{{- end }}

{{/* The portfolio that helm test makes: small enough for seconds of training. */}}
{{- define "edgefolio.testPortfolio" -}}
{{- $tests := .Values.tests }}
apiVersion: edgefolio.dev/v1alpha1
kind: ModelPortfolio
metadata:
  name: edgefolio-test
  namespace: {{ include "edgefolio.testNamespace" . }}
  labels:
    {{- include "edgefolio.labels" . | nindent 4 }}
spec:
  source:
    architecture: {library: edgefolio, name: cnn, options: {in_channels: 1, width: 32}}
  data: {trainingURI: "builtin:digits", validationPercent: 20, testPercent: 20, calibrationSamples: 512}
  methods:
    sparseTraining: {denseEpochs: 6, levels: 1, epochsPerLevel: 3, prunePercent: 75, batchSize: 64, augmentation: None}
  selection: {maxVariants: 2}
  profiling: {samples: 40, rounds: 2}
  repository:
    uri: {{ $tests.repository.uri | quote }}
    {{- with $tests.repository.secretRef }}
    secretRef: {name: {{ . }}}
    {{- end }}
    # What the test published goes with it.
    reclaimPolicy: Delete
  serving:
    modelName: edgefolio-test
    {{- with $tests.managed }}
    managed:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  {{- with $tests.job }}
  job:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
