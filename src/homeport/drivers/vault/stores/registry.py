"""Which driver reads which kind of store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from homeport.drivers.vault.stores.base import Kind, SecretStore, StoreConfig
from homeport.drivers.vault.stores.programs import Age, AwsSecretsManager, Infisical, OnePassword, Sops
from homeport.drivers.vault.stores.web import Doppler, GcpSecretManager, HashiCorpVault

DRIVERS: dict[Kind, Callable[[StoreConfig], SecretStore]] = {
    "vault": HashiCorpVault,
    "gcp": GcpSecretManager,
    "aws": AwsSecretsManager,
    "onepassword": OnePassword,
    "infisical": Infisical,
    "doppler": Doppler,
    "sops": Sops,
    "age": Age,
}

if TYPE_CHECKING:
    _: tuple[type[SecretStore], ...] = (HashiCorpVault, GcpSecretManager, AwsSecretsManager, OnePassword, Infisical, Doppler, Sops, Age)
