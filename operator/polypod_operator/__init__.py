"""The Kubernetes operator: thin kopf handlers around a pure reconcile."""
