"""Writes a spec as Terraform: `terraform init && terraform apply` makes the project on Google Cloud.

No secret's value is written: what people know is asked for by sensitive variables, what nobody has to know is made by the
random provider. There is no reader, so every part of the spec that no rule names as written is listed as a loss.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, ClassVar

from homeport.blueprints.cloudrun.names import short
from homeport.blueprints.kubernetes.reasons import matches
from homeport.blueprints.terraform.databases import Databases
from homeport.blueprints.terraform.hcl import Block, Ref, Value, render
from homeport.blueprints.terraform.network import has_private, network_blocks
from homeport.blueprints.terraform.reasons import REASONS, SAID
from homeport.blueprints.terraform.services import Services
from homeport.blueprints.terraform.values import Identifiers, Values
from homeport.model.reading import Loss, Written, show_path
from homeport.model.service import CronService, FunctionService, Service, WorkerService
from homeport.model.spec import Spec

_PROVIDERS = {"google": ("hashicorp/google", ">= 7.0, < 8.0"), "random": ("hashicorp/random", ">= 3.6, < 4.0")}
_PARTS = frozenset({"container", "health", "scale", "rollout", "resources", "restart", "release_command", "first_deploy_command"})
"""Properties that are compared part by part."""


class TerraformWriter:
    """Cloud Run services, jobs and worker pools, Cloud SQL, Memorystore, secrets, schedules and who may do what."""

    dialect: ClassVar[str] = "terraform"

    def write(self, spec: Spec) -> Written:
        emitter = Emitter(spec)
        files = {name: render(blocks) for name, blocks in emitter.files().items() if blocks}
        losses = dict(emitter.losses)
        for path in _paths(spec.canonical()):
            if not any(matches(path, pattern) for pattern in SAID) and not _told(path, losses):
                losses[path] = next(
                    (reason for pattern, reason in REASONS if fnmatchcase(path, pattern)), "Google Cloud has no such setting"
                )
        return Written(dialect=self.dialect, files=files, losses=tuple(Loss(path=path, reason=reason) for path, reason in losses.items()))


def _told(path: str, losses: dict[str, str]) -> bool:
    return any(one == path or path.startswith((f"{one}.", f"{one}[")) for one in losses)


def _paths(document: dict[str, Any]) -> list[str]:
    """A path for each property of each service, add-on and group, and for each other part of a spec."""
    found: list[str] = []
    for group, entries in document.items():
        if group not in ("services", "addons", "env_groups") or not isinstance(entries, dict):
            found.append(group)
            continue
        for name, entry in entries.items():
            for key, value in entry.items():
                inner = value if key in _PARTS and isinstance(value, dict) else {}
                found += [show_path((group, name, key, part)) for part in inner] or [show_path((group, name, key))]
    return found


class Emitter:
    """Turns one spec into files of blocks."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.losses: dict[str, str] = {}
        self.ids = Identifiers()
        for reserved in ("project", "region", "database-tier"):
            self.ids.of("variable", reserved)
        self.databases = Databases(spec, self.ids, self.loss)
        self.values = Values(spec, self.ids, self.databases.value, self.loss)
        self.databases.input = self.values.input
        self.services = Services(spec, self.ids, self.values, self.loss, databases=self.databases.needed)

    def loss(self, path: str, reason: str) -> None:
        """Something the files do not do, or a person has to."""
        self.losses.setdefault(path, reason)

    def files(self) -> dict[str, list[Block]]:
        databases = self.databases.blocks()
        running: list[Block] = []
        for name, service in self.spec.services.items():
            running += self._service(name, service)
        secrets = [*self.values.random_blocks(), *self.values.secret_blocks("google_service_account.app")]
        return {
            "main.tf": self._main(),
            "services.tf": running,
            "network.tf": network_blocks(self.spec, databases=self.databases.needed),
            "databases.tf": databases,
            "secrets.tf": secrets,
            "variables.tf": self._variables(),
            "outputs.tf": self._outputs(),
        }

    def _service(self, name: str, service: Service) -> list[Block]:
        if isinstance(service, FunctionService):
            self.loss(f"services.{name}", "functions are built by another product (Cloud Run functions): nothing is written for it")
            return []
        if isinstance(service, CronService):
            found = self.services.cron(name, service)
        elif isinstance(service, WorkerService):
            found = self.services.pool(name, service)
        else:
            found = self.services.service(name, service)
        found += self.services.hooks(name, service)
        variable = self.ids.of("variable", f"{name}-image")
        if variable in self.services.images:
            what = "an image with a web server and the built files, answering on PORT" if service.kind == "static" else "the image"
            self.loss(f"services.{name}.build", f"Terraform builds nothing: build {what}, push it, and set `{variable}`")
        return found

    def _main(self) -> list[Block]:
        providers: dict[str, Value] = {name: {"source": source, "version": version} for name, (source, version) in _PROVIDERS.items()}
        if not self.databases.needed and not self.values.generated:
            providers.pop("random")
        apis = ["iam", "run", "secretmanager"]
        apis += ["redis", "servicenetworking", "sqladmin"] if self.databases.needed else []
        apis += ["compute"] if self.databases.needed or has_private(self.spec) else []
        apis += ["cloudscheduler"] if self.services.schedules else []
        enabled: dict[str, Value] = {
            "for_each": Ref("toset([" + ", ".join(f'"{api}.googleapis.com"' for api in sorted(apis)) + "])"),
            "service": Ref("each.value"),
            "disable_on_destroy": False,
        }
        account = short(f"{self.spec.name}-app", 30)
        return [
            Block("terraform", (), {"required_version": ">= 1.5"}, [Block("required_providers", (), providers)]),
            Block("provider", ("google",), {"project": Ref("var.project"), "region": Ref("var.region")}),
            Block("resource", ("google_project_service", "apis"), enabled),
            Block(
                "resource",
                ("google_service_account", "app"),
                {
                    "account_id": account,
                    "display_name": self.spec.title or self.spec.name,
                    "depends_on": [Ref("google_project_service.apis")],
                },
            ),
        ]

    def _variables(self) -> list[Block]:
        def variable(name: str, what: str, default: Value = None, sensitive: bool | None = None) -> Block:
            attributes: dict[str, Value] = {"description": what, "type": Ref("string"), "default": default, "sensitive": sensitive}
            return Block("variable", (name,), attributes)

        found = [variable("project", "Google Cloud project id."), variable("region", "Where everything runs.", "europe-west1")]
        if self.databases.needed:
            found.append(variable("database_tier", "Size of the Cloud SQL instances.", "db-f1-micro"))
        found += [variable(name, f"Image of the service {service}.") for name, service in self.services.images.items()]
        return found + [variable(name, what, sensitive=True) for name, what in self.values.inputs.items()]

    def _outputs(self) -> list[Block]:
        found = []
        for name, service in self.spec.services.items():
            if service.kind in ("web", "static"):
                identifier = self.ids.of("service", name)
                attributes: dict[str, Value] = {
                    "description": f"Address of {name}.",
                    "value": Ref(f"google_cloud_run_v2_service.{identifier}.uri"),
                }
                found.append(Block("output", (f"{identifier}_url",), attributes))
        return found
