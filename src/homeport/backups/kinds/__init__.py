"""Every kind of add-on that can be copied. The one place that lists them."""

from __future__ import annotations

from collections.abc import Mapping

from homeport.backups.errors import BackupMissing
from homeport.backups.kinds.base import Copier
from homeport.backups.kinds.mariadb import MariaDBCopier
from homeport.backups.kinds.postgres import PostgresCopier
from homeport.backups.kinds.temporal import TemporalCopier
from homeport.backups.kinds.valkey import ValkeyCopier

COPIERS: Mapping[str, Copier] = {copier.kind: copier for copier in (PostgresCopier(), ValkeyCopier(), MariaDBCopier(), TemporalCopier())}


def copier_of(kind: str) -> Copier:
    """Raises BackupMissing when add-ons of that kind are not copied."""
    try:
        return COPIERS[kind]
    except KeyError:
        raise BackupMissing(f"Add-ons of the kind {kind!r} are not copied by this version.") from None
