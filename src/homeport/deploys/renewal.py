"""After the vault's key was lost: new passwords for add-ons, whose engines need no old one to be told another."""

from __future__ import annotations

from homeport.deploys.addon_care import AddOnCare
from homeport.deploys.audit import Caller
from homeport.deploys.control import ControlPlane
from homeport.model.addon import External
from homeport.model.errors import HomeportError
from homeport.model.views import RenewedAddOn, VaultRenewal


def renew(control: ControlPlane, *, by: Caller) -> VaultRenewal:
    """New passwords for each add-on of what is live whose own do not open, and what else does not open. Raises AuditUnavailable.

    The next deploys hand them out; until then the old ones work, since what runs was started with them.
    """
    platform, care = control.platform, AddOnCare(control)
    platform.secrets.audit.write(by, "renew", f"vault key {platform.secrets.sealer.status().key}")
    done = list[RenewedAddOn]()
    for row in platform.store.environments.all():
        release = platform.live_release(row.project, row.environment)
        if release is None:
            continue
        for name, definition in release.spec.addons.items():
            if not isinstance(definition, External) and platform.addons.lost(release, name):
                error = _renewed(care, row.project, row.environment, name, by)
                done.append(RenewedAddOn(project=row.project, environment=row.environment, addon=name, error=error))
    return VaultRenewal(addons=tuple(done), values=tuple(platform.vault.lost()))


def _renewed(care: AddOnCare, project: str, environment: str, name: str, by: Caller) -> str:
    """Why an add-on has no new passwords; empty when it has."""
    try:
        care.rotate(project, environment, name, deploy=False, by=by)
    except HomeportError as error:
        return f"{error.why.rstrip('.')}. {error.fix}"
    except OSError as error:
        return str(error)
    return ""
