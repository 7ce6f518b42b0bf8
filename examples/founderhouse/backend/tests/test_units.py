import importlib.util
import json
import logging
import math
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.config import Settings
from app.core.errors import Unauthorized
from app.core.logging import JsonFormatter
from app.core.security import hash_password, issue_token, read_token, verify_password
from app.services.embeddings import DIMENSIONS, embed
from app.services.startups import slug_of

ROOT = Path(__file__).resolve().parents[2]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_embeddings_are_unit_vectors_and_the_same_everywhere():
    vector = embed("A battery that stores wind power")
    assert len(vector) == DIMENSIONS
    assert math.isclose(cosine(vector, vector), 1)
    assert vector == embed("a battery, that stores WIND power!")
    assert embed("the of and") == [0.0] * DIMENSIONS


def test_related_texts_are_closer_than_unrelated_ones():
    query = embed("kidney blood test")
    assert cosine(query, embed("a blood test for early kidney disease")) > 0.3 > cosine(query, embed("routes for electric delivery vans"))


@pytest.mark.parametrize("url", ["postgres://u:p@h:5432/d", "postgresql://u:p@h:5432/d", "postgresql+asyncpg://u:p@h:5432/d"])
def test_every_form_of_a_database_address_gets_the_driver(url):
    assert Settings(database_url=url).database_url.get_secret_value() == "postgresql+psycopg://u:p@h:5432/d"


def test_other_databases_are_refused():
    with pytest.raises(ValidationError):
        Settings(database_url="mysql://u:p@h/d")


def test_production_does_not_start_with_the_development_secret():
    secret = "development-only-secret-of-32-bytes!"
    with pytest.raises(ValidationError, match="JWT_SECRET"):
        Settings(environment="production", jwt_secret=secret)
    assert Settings(environment="development", jwt_secret=secret)


def test_secrets_do_not_show_in_the_settings():
    assert "hunter" not in repr(Settings(database_url="postgresql://u:hunter@h/d", jwt_secret="hunter" * 6))


def test_passwords():
    stored = hash_password("correct horse battery")
    assert verify_password("correct horse battery", stored)
    assert not verify_password("wrong", stored)
    assert not verify_password("nobody has this password", None)


def test_tokens_expire_and_are_of_one_kind():
    settings, user = Settings(), uuid.uuid4()
    assert read_token(issue_token(user, "access", settings), "access", settings)["sub"] == str(user)
    with pytest.raises(Unauthorized):
        read_token(issue_token(user, "refresh", settings), "access", settings)
    with pytest.raises(Unauthorized):
        read_token(issue_token(user, "access", settings, datetime.now(UTC) - timedelta(days=1)), "access", settings)
    with pytest.raises(Unauthorized):
        read_token(issue_token(user, "access", Settings(jwt_secret="x" * 32)), "access", settings)


def test_log_lines_are_json_with_their_fields():
    record = logging.makeLogRecord({"name": "app", "levelname": "INFO", "msg": "hello %s", "args": ("you",), "user": 7})
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["msg"], entry["level"], entry["user"]) == ("hello you", "info", 7)


def test_slugs():
    assert slug_of("Ünder & Over, Ltd.") == "nder-over-ltd"
    assert slug_of("!!!") == "startup"


def test_the_seed_data_is_what_the_generator_makes():
    spec = importlib.util.spec_from_file_location("generate_data", ROOT / "scripts" / "generate_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, rows in module.rows().items():
        lines = (ROOT / "backend" / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == rows


def test_railway_toml_and_json_say_the_same():
    import tomllib

    as_json = json.loads((ROOT / "railway.json").read_text())
    as_json.pop("$schema")
    assert tomllib.loads((ROOT / "railway.toml").read_text()) == as_json
