"""Kubernetes manifests: one stream of documents, as `kubectl apply -f` takes it."""

from homeport.blueprints.kubernetes.reader import KubernetesReader
from homeport.blueprints.kubernetes.writer import KubernetesWriter

__all__ = ["KubernetesReader", "KubernetesWriter"]
