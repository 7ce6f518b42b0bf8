"""What Terraform's Google resources say of a spec, and why they do not say the rest."""

from homeport.blueprints.cloudrun.reasons import REASONS as CLOUD_RUN

SAID = (
    "version", "name", "title", "description",
    "services.*.kind", "services.*.title", "services.*.port", "services.*.command", "services.*.env*", "services.*.env_groups",
    "services.*.build*", "services.*.root", "services.*.publish",
    "services.*.domains*", "services.*.disks*", "services.*.default_domain", "services.*.sticky",
    "services.*.schedule", "services.*.timezone",
    "services.*.concurrency", "services.*.job", "services.*.timeout", "services.*.force_https",
    "services.*.container.entrypoint", "services.*.container.working_dir",
    "services.*.release_command.command", "services.*.release_command.timeout",
    "services.*.first_deploy_command.command", "services.*.first_deploy_command.timeout",
    "services.*.resources.cpu", "services.*.resources.memory",
    "services.*.scale.instances", "services.*.scale.min", "services.*.scale.max", "services.*.scale.scale_to_zero",
    "services.*.scale.hard_concurrency", "services.*.scale.concurrency_type",
    "services.*.health.kind", "services.*.health.path", "services.*.health.interval", "services.*.health.timeout",
    "services.*.health.deadline",
    "services.*.health.restart_after", "services.*.health.headers*", "services.*.health.start_period", "services.*.health.role",
    "services.*.restart.policy", "services.*.restart.max_retries",
    "addons.*.kind", "addons.*.title", "addons.*.version", "addons.*.database", "addons.*.user",
    "addons.*.disk", "addons.*.disk_autoscaling",
    "addons.*.memory", "addons.*.high_availability", "addons.*.image", "addons.*.parameters*", "addons.*.eviction", "addons.*.persistence",
    "addons.*.flavour", "addons.*.extensions_wanted", "addons.*.address", "addons.*.namespace", "addons.*.type", "addons.*.url",
    "env_groups.*.env*", "env_groups.*.description",
)  # fmt: skip
"""Patterns of `kubernetes.reasons.matches`: what the writer writes, or lists itself where it cannot."""

REASONS = (
    ("services.*.region", "one region is a variable, for all"),
    ("addons.*.plan", "the tier is a variable (`database_tier`)"),
    ("addons.*.password", "a random password is made"),
    ("addons.*.root_password", "no root user is made"),
    ("addons.*.replicas", "add a replica as another google_sql_database_instance"),
    ("addons.*.ip_allow_list", "the databases have private addresses only"),
    ("addons.*.region", "one region is a variable, for all"),
    ("addons*", "a managed database has no such setting"),
    *((pattern, reason) for pattern, reason in CLOUD_RUN if not pattern.startswith("addons")),
)
