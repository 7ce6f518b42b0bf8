"""Names that Cloud Run fixes, and what its reader and writer agree upon."""

from __future__ import annotations

import hashlib
import re

from homeport.model.base import slug

PROJECT = "homeport.dev/project"
"""Annotation of the first file: the project's name."""
FILES = "homeport.dev/files"
"""Annotation of the first file: the files beside it, parted by spaces. gcloud takes one resource a file."""
KIND = "homeport.dev/kind"
SCHEDULE = "homeport.dev/schedule"
TIMEZONE = "homeport.dev/timezone"
CONCURRENCY = "homeport.dev/concurrency"
HOOK = "homeport.dev/hook"
"""Annotation of a job that belongs to a service: `release web`."""

INGRESS = "run.googleapis.com/ingress"
INVOKER = "run.googleapis.com/invoker-iam-disabled"
NO_URL = "run.googleapis.com/default-url-disabled"
MODE = "run.googleapis.com/scalingMode"
COUNT = "run.googleapis.com/manualInstanceCount"
MIN, MAX = "autoscaling.knative.dev/minScale", "autoscaling.knative.dev/maxScale"
AFFINITY = "run.googleapis.com/sessionAffinity"
THROTTLING = "run.googleapis.com/cpu-throttling"
DESCRIPTION = "run.googleapis.com/description"
LOCATION = "cloud.googleapis.com/location"
ACCELERATOR = "run.googleapis.com/accelerator"
BUCKETS = "gcsfuse.run.googleapis.com"
KEPT = (
    "run.googleapis.com/cloudsql-instances",
    "run.googleapis.com/vpc-access-connector",
    "run.googleapis.com/vpc-access-egress",
    "run.googleapis.com/network-interfaces",
    "run.googleapis.com/execution-environment",
    "run.googleapis.com/startup-cpu-boost",
    "run.googleapis.com/container-dependencies",
    "run.googleapis.com/encryption-key",
    "run.googleapis.com/gpu-zonal-redundancy-disabled",
    THROTTLING,
)
"""Annotations of a revision that are Google's own business: kept, and written back."""
RESERVED = frozenset({"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION", "CLOUD_RUN_JOB", "CLOUD_RUN_EXECUTION"})
"""Variables that Cloud Run sets itself."""
DEFAULT_PORT = 8080
CPUS = (1, 2, 4, 6, 8)
LONGEST = 49
REGION = re.compile(r"[a-z]+-[a-z]+\d{1,2}")


def short(text: str, limit: int = LONGEST) -> str:
    """A name that Cloud Run takes: begins with a letter, at most 49 characters; a long one is cut and marked with a digest."""
    name = slug(text)
    name = name if name[:1].isalpha() else f"x-{name}"
    if len(name) <= limit:
        return name
    return f"{name[: limit - 7].rstrip('-')}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def secret_id(text: str) -> str:
    """A name that Secret Manager takes."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:255] or "_"
