{{/* What the operator does with TaskRuns and pods, in each namespace that it serves. */}}
{{- define "polypod.operatorRules" }}
rules:
  - apiGroups: [polypod.dev]
    resources: [taskruns]
    verbs:
      - get      # one whose write met another's, or that a list has left out
      - list     # all, at the start and every ten minutes
      - watch
      - delete   # spec.ttlSecondsAfterFinished
  - apiGroups: [polypod.dev]
    resources: [taskruns/status]
    verbs: [patch]     # the status is all that is written to a TaskRun
  - apiGroups: [polypod.dev]
    resources: [taskruns/finalizers]
    verbs: [update]    # asked for by clusters that check blockOwnerDeletion: pods are owned by their TaskRun
  - apiGroups: [""]
    resources: [pods]
    verbs:
      - get      # one that is there already, or that a list has left out
      - list
      - watch
      - create   # an attempt
      - delete   # cancel, suspend, timeouts
  - apiGroups: [""]
    resources: [events]
    verbs:
      - create   # what a person should know
      - list     # why a pod does not start: its volume cannot be mounted
{{- end }}
{{/* The Execution API: from a pod's token to the TaskRun that it may act for. */}}
{{- define "polypod.apiRules" }}
rules:
  - apiGroups: [""]
    resources: [pods]
    verbs: [get]
  - apiGroups: [polypod.dev]
    resources: [taskruns]
    verbs: [get]
  - apiGroups: [""]
    resources: [namespaces]
    verbs: [get]       # whether it is the one whose rows are here, or another of its name
{{- end }}
{{/* PolypodExecutor in Airflow's scheduler; its api-server shows logs, its Dag processor reads which queues are mapped. */}}
{{- define "polypod.airflowRules" }}
rules:
  - apiGroups: [polypod.dev]
    resources: [taskruns]
    verbs: [create, get, list, watch, delete]
  - apiGroups: [""]
    resources: [secrets]
    verbs:
      - create   # the workloads of a scheduler's loop, with their tokens
      - patch    # their owners: the TaskRuns that they go with
      - delete
      - list     # what a killed scheduler has left over
  - apiGroups: [""]
    resources: [pods/log]
    verbs: [get]       # the log of a task that runs
{{- end }}
