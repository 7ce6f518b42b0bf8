"""What a MariaDB server is told, as text: settings, names and accounts."""

from __future__ import annotations

import pytest

from homeport.drivers.addons.mariadb import config
from homeport.model.addon import MariaDB
from homeport.model.env import PlainValue


def test_names_follow_the_file_and_else_the_add_on() -> None:
    """Database and owner are the file's; `root` is never the owner that services share."""
    assert config.layout("main-db", MariaDB()) == config.Layout(database="main_db", owner="main_db")
    assert config.layout("x", MariaDB(database="shop", user="app")) == config.Layout(database="shop", owner="app")
    assert config.layout("x", MariaDB(database="shop", user="root")) == config.Layout(database="shop", owner="shop")
    found = config.layout("x", MariaDB(database="shop", user="web"))
    assert [found.account(name) for name in ("", "web", "worker", "root")] == ["web", "svc_web", "worker", "svc_root"]


@pytest.mark.parametrize(
    ("definition", "word"),
    [
        (MariaDB(database="mysql"), "database name"),
        (MariaDB(database="a" * 65), "database name"),
        (MariaDB(database="shop", user="mariadb.sys"), "user name"),
        (MariaDB(database="shop", parameters={"init-file": "/etc/passwd"}), "Homeport's own"),
        (MariaDB(database="shop", parameters={"max_connections\nuser": "root"}), "not a setting"),
        (MariaDB(database="shop", parameters={"sql_mode": "x\n[mysqld]"}), "not a setting"),
    ],
)
def test_what_no_server_is_given(definition: MariaDB, word: str) -> None:
    """Names that MariaDB or Homeport keeps, and settings that would leave the add-on's folder, are refused with the reason."""
    assert word in config.problems(definition)[0]


def test_settings_of_the_file_reach_the_server() -> None:
    """A known name is written canonically, a value with more than plain words in quotes; memory decides the pool."""
    text = config.conf("127.78.1.1", 3306, 1 << 30, {"max-connections": "17", "sql_mode": 'ANSI "x"'})
    assert "max_connections = 17\n" in text and 'sql_mode = "ANSI \\"x\\""\n' in text
    assert "innodb_buffer_pool_size = 256M\n" in text and "bind_address = 127.78.1.1\n" in text


def test_passwords_are_sent_as_hashes() -> None:
    """The hash is what MariaDB's PASSWORD() gives; statements hold nothing else."""
    assert config.digest("secret") == "*14E65567ABDB5135D0CFD9A70B3032C179A49EE7"
    statement = config.identified([config.digest("old"), config.digest("new")])
    assert statement.count("mysql_native_password USING '*") == 2 and " OR " in statement and "new" not in statement


def test_the_passwords_of_an_account_are_read_back() -> None:
    """One, two with the newest last, and none."""
    old, new = config.digest("old"), config.digest("new")
    both = f'{{"authentication_string":"{old}","auth_or":[{{}},{{"authentication_string":"{new}"}}]}}'
    assert config.known_digests(both) == (old, new)
    assert config.known_digests(f'{{"authentication_string":"{new}"}}') == (new,)
    assert config.known_digests(f'{{"authentication_string":"{config.NOBODY}"}}') == ()


def test_names_are_quoted_and_patterns_mean_themselves() -> None:
    """Nothing in a name ends the quotes, and GRANT's wildcards are no wildcards."""
    assert config.name("a`b") == "`a``b`" and config.text("o'b\\") == "'o''b\\\\'"
    assert config.pattern("my_shop%") == "`my\\_shop\\%`"


def test_a_file_may_let_root_in_without_a_password() -> None:
    """By the images' own variables, and only when it names no password."""
    assert config.open_root(MariaDB(env={"MYSQL_ALLOW_EMPTY_PASSWORD": PlainValue(value="yes")}))
    assert not config.open_root(MariaDB(env={"MYSQL_ALLOW_EMPTY_PASSWORD": PlainValue(value="")}))
    closed = MariaDB(env={"MYSQL_ALLOW_EMPTY_PASSWORD": PlainValue(value="1")}, root_password=PlainValue(value="secret"))
    assert not config.open_root(closed) and not config.open_root(MariaDB())
