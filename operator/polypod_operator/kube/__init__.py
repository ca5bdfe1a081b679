"""Kubernetes, without anything of Polypod: API client, list and watch, lease, work queue."""
