"""What a Valkey server is told, as text."""

from __future__ import annotations

from homeport.drivers.addons.valkey import config


def conf(**changes: object) -> dict[str, str]:
    tuning = config.Tuning(host="127.78.0.1", port=6379, memory=1 << 20).model_copy(update=changes)
    return dict(line.split(" ", 1) for line in config.conf(tuning).splitlines()[1:])


def test_persistence_is_on_or_off_as_asked() -> None:
    """With it, every write is in the append-only file; without it nothing is written at all."""
    assert conf()["appendonly"] == "yes"
    off = conf(persistence=False, eviction="allkeys-lru")
    assert (off["appendonly"], off["save"], off["maxmemory-policy"], off["maxmemory"]) == ("no", '""', "allkeys-lru", str(1 << 20))


def test_a_file_may_tune_but_not_open() -> None:
    """Directives that decide who gets in and what runs stay Homeport's."""
    given = conf(parameters={"hz": "5", "bind": "0.0.0.0", "loadmodule": "/tmp/x.so", "a\nb": "c", "timeout": '1"\n'})
    assert given["hz"] == "5"
    assert given["bind"] == "127.78.0.1"
    assert "loadmodule" not in given
    assert len(config.refused({"requirepass": "x", "Bad": "1", "timeout": "1\n"})) == 3
    assert config.quoted('a"b') == '"a\\"b"'


def test_access_rules_can_be_read_back() -> None:
    """Each user keeps its hashes in order; the user that a password alone means is closed until it has one."""
    users = {"web": ("a" * 64, "b" * 64), config.ADMIN: ("c" * 64,)}
    text = config.acl(users)
    assert config.parse_acl(text) == {config.OWNER: (), **users}
    closed, *_ = text.splitlines()
    assert closed.startswith("user default off ")
    assert "resetchannels" in text and "-@admin" in text and "nopass" not in text
    assert config.user_of("default") != config.OWNER


def test_an_image_without_a_password_asks_for_none() -> None:
    """As in the file: the owner is let in with none, services keep passwords of their own, and nobody gets more commands for it."""
    text = config.acl({"web": ("a" * 64,)}, open=True)
    owner = next(line for line in text.splitlines() if line.startswith("user default"))
    assert " on nopass " in owner and "-@admin" in owner
    assert "nopass" not in next(line for line in text.splitlines() if line.startswith("user web"))
    assert "nopass" not in config.acl({"web": ("a" * 64,)})


def test_tls_is_refused_with_its_reason() -> None:
    """A file that asks for TLS is told that the connection never leaves the machine."""
    assert "TLS" in config.refused({"tls-port": "6380"})[0]
