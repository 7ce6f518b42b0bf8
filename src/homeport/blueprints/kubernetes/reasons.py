"""Why Kubernetes would not do what a spec says, by path; and what it does by other words."""

from __future__ import annotations

import re
from functools import cache

DEFAULT = "Kubernetes has no field for it; kept in the project's ConfigMap"

QUIET = (
    "name",
    "title",
    "description",
    "version",
    "metadata*",
    "services.*.title",
    "services.*.port",
    "services.*.command",
    "services.*.container.entrypoint",
    "services.*.hooks.post_start*",
    "services.*.hooks.pre_stop*",
    "services.*.release_command.command",
    "services.*.first_deploy_command.command",
    "services.*.shutdown_grace",
    "services.*.rollout.strategy",
    "services.*.health.role",
    "services.*.health.port",
    "services.*.health.command",
    "addons.*.title",
    "addons.*.image",
    "addons.*.version",
    "addons.*.user",
    "addons.*.database",
    "addons.*.persistence",
    "addons.*.command",
    "env_groups.*.description",
    "volumes*",
)
"""Patterns of paths that the writer has acted upon, though the reader finds other words."""

REASONS = (
    ("services.*.health.method", "probes ask with GET"),
    ("services.*.health.expect_*", "a probe counts 200 to 399 as good, whatever the body says"),
    ("services.*.health.body", "probes send no body"),
    ("services.*.health.tls_*", "probes over HTTPS check no certificate and send no name"),
    ("services.*.health.start_interval", "a probe has one interval"),
    ("services.*.health*", "probes have no such setting, and count in whole seconds"),
    ("services.*.checks*", "one probe for each of ready, live and start-up: another check has no place"),
    ("services.*.resources.plan", "Kubernetes knows no plans: set cpu and memory"),
    ("services.*.resources*", "a container's limits are cpu, memory and whole GPUs"),
    ("services.*.scale.instances", "the autoscaler decides how many run"),
    ("services.*.scale.scale_to_zero", "an autoscaler keeps one instance: KEDA or Knative go to zero"),
    ("services.*.scale.target_concurrency", "an autoscaler of the cluster sees cpu and memory only: KEDA or Knative see requests"),
    ("services.*.scale.regions*", "a cluster is in one place"),
    ("services.*.scale*", "the autoscaler has no such setting"),
    ("services.*.restart*", "a pod that should run is always started again, with growing pauses and no limit"),
    ("services.*.rollout*", "a Deployment has no such step: Argo Rollouts or Flagger have"),
    ("services.*.depends_on*", "Kubernetes starts everything at once: a program waits for what it needs, or is started again"),
    ("services.*.env_files*", "nothing reads files of the repository in the cluster: put the variables into a ConfigMap"),
    ("services.*.stop_signal", "the image decides the stop signal (STOPSIGNAL)"),
    ("services.*.region", "a cluster is in one place"),
    ("services.*.maintenance*", "an Ingress has no maintenance mode"),
    ("services.*.ip_allow_list", "an Ingress has no allow list: set it up in the ingress controller's own words"),
    ("services.*.force_https", "an Ingress does not redirect by itself: set it up in the ingress controller's own words"),
    ("services.*.sticky", "a Service keeps a client's address to one instance; ingress controllers go past it"),
    ("services.*.edge*", "an Ingress has no such setting"),
    ("services.*.domains*", "an Ingress has no such setting"),
    ("services.*.ports*", "ports are open inside of the cluster only: publish one with a Service of type LoadBalancer"),
    ("services.*.disks*", "a claim has no such setting"),
    ("services.*.triggers*", "the cluster does not watch the repository and calls no paths: use a pipeline, or a CronJob with curl"),
    ("services.*.previews*", "previews are Homeport's own"),
    ("services.*.notifications", "notifications are Homeport's own"),
    ("services.*.pipeline", "pipelines run elsewhere"),
    ("services.*.build_filter*", "Kubernetes builds nothing"),
    ("services.*.root", "Kubernetes builds nothing"),
    ("services.*.repository", "Kubernetes builds nothing"),
    ("services.*.profiles", "a manifest is applied whole: leave the objects out"),
    ("services.*.timezone", "a CronJob has no such setting"),
    ("services.*.container.container_name", "the cluster names pods itself"),
    ("services.*.container.networks*", "a cluster has one network"),
    ("services.*.container.logging*", "the cluster's own agents collect what a program prints"),
    ("services.*.container*", "a pod has no such setting"),
    ("services.*.hooks*", "a pod has commands after its start and before its end only"),
    ("services.*.publish", "the image holds the files"),
    ("services.*.single_page", "the image's web server decides it"),
    ("services.*.not_found_page", "the image's web server decides it"),
    ("services.*.clean_urls", "the image's web server decides it"),
    ("services.*.trailing_slash", "the image's web server decides it"),
    ("services.*.extensions*", "kept from the file that was read; Kubernetes has no such setting"),
    ("extensions*", "kept from the file that was read; Kubernetes has no such setting"),
    ("addons.*.plan", "Kubernetes knows no plans: set memory and the claim's size"),
    ("addons.*.password", "the Secret holds the password"),
    ("addons.*.root_password", "the Secret holds the password, the same for root"),
    ("addons.*.extensions*", "kept from the file that was read; the image's own settings decide"),
    ("addons.*.env*", "only plain values are written to an add-on's container"),
    ("addons*", "one instance from the engine's image: the cluster does nothing of the kind"),
    ("environments*", "one file is one environment: convert once for each"),
    ("previews*", "previews are Homeport's own"),
    ("watch*", "Homeport's own; Argo Rollouts and Flagger do the like"),
    ("pipelines*", "pipelines run elsewhere"),
    ("mask*", "Homeport's own"),
    ("tunnels*", "run cloudflared as a Deployment of its own"),
    ("networks*", "a cluster has one network"),
    ("routes*", "an Ingress only passes a host and a path on, unchanged, to a service"),
)


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    *parts, last = re.split(r"(?<=.)(?=\.)", pattern)
    text = "".join(re.escape(part).replace(r"\*", r"(?:[^.\[]+|\[\"[^\"]*\"\])") for part in parts)
    return re.compile(text + (re.escape(last[:-1]) + r".*" if last.endswith("*") else re.escape(last)))


def matches(path: str, pattern: str) -> bool:
    """Whether a path is the one a pattern names: `*` stands for one part, at the end for anything that follows."""
    return _pattern(pattern).fullmatch(path) is not None
