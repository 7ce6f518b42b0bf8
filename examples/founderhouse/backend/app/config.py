"""Settings from the environment (and from the file that ENV_FILE names, `.env` by default)."""

import os
from functools import lru_cache
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DEV_SECRET = "development-only-secret-of-32-bytes!"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_file=os.environ.get("ENV_FILE", ".env"), extra="ignore")

    environment: Literal["development", "test", "staging", "production"] = "development"
    log_level: str = "INFO"
    log_json: bool = True

    database_url: SecretStr = SecretStr("postgresql://founderhouse:founderhouse@localhost:5432/founderhouse")
    db_pool_size: int = Field(5, ge=1, le=100)
    db_statement_timeout_ms: int = Field(10_000, ge=100)

    redis_url: SecretStr = SecretStr("redis://localhost:6379/0")
    cache_ttl_seconds: int = Field(60, ge=0)
    rate_limit_per_minute: int = Field(120, ge=0, description="0 switches the limit off")
    rate_limit_auth_per_minute: int = Field(20, ge=0)

    jwt_secret: SecretStr = SecretStr(DEV_SECRET)
    jwt_issuer: str = "founderhouse"
    access_token_minutes: int = Field(30, ge=1)
    refresh_token_days: int = Field(14, ge=1)

    cors_origins: str = ""
    seed_demo_data: bool = False

    git_sha: str = Field("", validation_alias="RAILWAY_GIT_COMMIT_SHA")

    @field_validator("database_url")
    @classmethod
    def _with_driver(cls, value: SecretStr) -> SecretStr:
        """Platforms hand out postgres:// or postgresql://; SQLAlchemy wants the driver named."""
        scheme, separator, rest = value.get_secret_value().partition("://")
        if not separator or scheme.split("+")[0] not in ("postgres", "postgresql"):
            raise ValueError("DATABASE_URL must be a postgresql:// address")
        return SecretStr(f"postgresql+psycopg://{rest}")

    @model_validator(mode="after")
    def _real_secret_outside_development(self) -> "Settings":
        secret = self.jwt_secret.get_secret_value()
        if self.environment in ("staging", "production") and (secret == DEV_SECRET or len(secret) < 32):
            raise ValueError("JWT_SECRET must be set to at least 32 characters in staging and production")
        return self

    @property
    def cors_origin_list(self) -> list[str]:
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]


@lru_cache
def get_settings() -> Settings:
    return Settings()
