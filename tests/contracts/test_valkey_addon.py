"""What Valkey add-ons promise beyond the contract: what queues and caches may do, eviction, and persistence that can be switched."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from homeport.drivers.addons.base import AddOnId, AddOnRequest, Provisioned
from homeport.drivers.addons.valkey import ValkeyDriver
from homeport.drivers.reach import forget, reachable
from homeport.drivers.toolchains.toolchains import Toolchains
from homeport.model.addon import Redis
from homeport.settings import Settings

ENGINES = Path(tempfile.gettempdir()) / f"homeport-test-engines-{os.getuid()}"
ALLOWED = (
    "CLIENT SETNAME worker", "CLIENT LIST", "INFO", "KEYS *", "SCAN 0", "SCRIPT LOAD return(1)", "EVAL return(redis.call('get','k')) 0",
    "LPUSH queue a", "BRPOP queue 1", "ZADD delayed 1 job", "ZPOPMIN delayed", "XADD stream * f v", "XGROUP CREATE stream g 0",
    "XREADGROUP GROUP g c COUNT 1 STREAMS stream >", "PUBLISH channel message", "SET k v EX 60 NX", "SORT queue", "SELECT 1", "DBSIZE",
    "FLUSHDB", "FLUSHALL", "OBJECT ENCODING none", "MEMORY USAGE none", "WAIT 0 1", "HELLO 3",
)  # fmt: skip
REFUSED = (
    "CONFIG GET *", "CONFIG SET dir /tmp", "ACL LIST", "ACL SETUSER x", "SHUTDOWN", "REPLICAOF 127.0.0.1 1", "MODULE LIST",
    "SAVE", "BGREWRITEAOF", "MONITOR", "MIGRATE 127.0.0.1 1 k 0 1", "CLIENT KILL TYPE normal",
)  # fmt: skip


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyDriver]:
    home = reachable(tmp_path_factory.mktemp("valkey") / "home")
    ENGINES.mkdir(mode=0o755, exist_ok=True)
    found = ValkeyDriver(home, Toolchains(ENGINES, network=Settings.from_environment().network, search=[]))
    yield found
    found.stop(ID)
    found.close()
    forget(home)


ID = AddOnId(project="shop", environment="test", name="cache")


def provision(driver: ValkeyDriver, **definition: object) -> Provisioned:
    return driver.provision(
        AddOnRequest(id=ID, definition=Redis(**definition), consumers=("web",), passwords={"": "o" * 32, "web": "w" * 32})
    )


def client(provisioned: Provisioned, consumer: str = "web") -> redis.Redis:
    return redis.Redis.from_url(provisioned.credentials[consumer].url, retry=Retry(NoBackoff(), 0), decode_responses=True)


@pytest.mark.parametrize("command", ALLOWED)
def test_what_queues_and_caches_need_is_allowed(driver: ValkeyDriver, command: str) -> None:
    """Commands of Sidekiq, BullMQ, Celery and cache libraries work for a service."""
    with client(provision(driver)) as connection:
        try:
            connection.execute_command(*command.split())
        except redis.exceptions.NoPermissionError:
            pytest.fail(f"{command} is refused")
        except redis.exceptions.ResponseError:
            pass  # refused for another reason: the key is not there


@pytest.mark.parametrize("command", REFUSED)
def test_what_runs_the_server_is_refused(driver: ValkeyDriver, command: str) -> None:
    """A service cannot reconfigure, read the configuration of, or end the server; neither can the owner's login."""
    for consumer in ("web", ""):
        with client(provision(driver), consumer) as connection, pytest.raises(redis.exceptions.NoPermissionError):
            connection.execute_command(*command.split())


def test_the_oldest_keys_go_when_memory_is_full(driver: ValkeyDriver) -> None:
    """With `allkeys-lru` writes go on past the cap; without eviction they are refused."""
    with client(provision(driver, memory=4 << 20, eviction="allkeys-lru")) as connection:
        for number in range(100):
            connection.set(f"big{number}", "x" * 100_000)
        assert connection.dbsize() < 60
        assert connection.get("big99") is not None
    assert driver.inspect(ID).metrics["evicted_keys"] > 0
    with client(provision(driver, memory=4 << 20)) as connection, pytest.raises(redis.exceptions.OutOfMemoryError):
        for number in range(100):
            connection.set(f"more{number}", "x" * 100_000)
    with client(provision(driver)) as connection:
        connection.flushall()


def test_persistence_can_be_switched_without_loss(driver: ValkeyDriver) -> None:
    """Switching keeps what the running server has, without a restart; switched off, a kill forgets what came after."""
    with client(provision(driver, persistence=True)) as connection:
        connection.set("kept", "first")
    pid = driver.inspect(ID).pid
    with client(provision(driver, persistence=False)) as connection:
        assert connection.get("kept") == "first"
        connection.set("later", "second")
    with client(provision(driver, persistence=True)) as connection:
        assert connection.get("later") == "second"
    assert driver.inspect(ID).pid == pid
    assert killed(driver, "later", persistence=True) == "second"
    with client(provision(driver, persistence=False)) as connection:
        connection.set("fleeting", "1")
    assert killed(driver, "fleeting", persistence=False) is None
    assert killed(driver, "fleeting", persistence=True) is None


def killed(driver: ValkeyDriver, key: str, *, persistence: bool) -> object:
    """What a key is after SIGKILL and coming back."""
    found = provision(driver, persistence=persistence)
    pid = driver.inspect(ID).pid
    os.kill(pid, 9)
    while not driver.ensure() and driver.inspect(ID).pid in (0, pid):
        pass
    with client(found) as connection:
        return connection.get(key)


def test_no_password_opens_it(driver: ValkeyDriver) -> None:
    """Without a password nothing is answered, not even a ping."""
    found = provision(driver)
    with (
        redis.Redis(host=found.host, port=found.port, retry=Retry(NoBackoff(), 0)) as stranger,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        stranger.ping()


@pytest.mark.parametrize("policy", [name for name in get_args(Redis.model_fields["eviction"].annotation) if name])
def test_every_eviction_policy_is_taken_by_the_running_server(driver: ValkeyDriver, policy: str) -> None:
    """Without a restart: a connection from before sees it."""
    with client(provision(driver)) as connection:
        pid = connection.info()["process_id"]
        provision(driver, eviction=policy)
        found = connection.info()
        assert (found["maxmemory_policy"], found["process_id"]) == (policy, pid)


def test_an_image_that_asks_for_no_password_is_open(driver: ValkeyDriver) -> None:
    """As a compose file's `redis` is: a program that only knows the host gets in, and no further than a service does; then closed again."""
    made = provision(driver, image="redis:7")
    bare = redis.Redis(made.host, made.port, decode_responses=True, retry=Retry(NoBackoff(), 0))
    with bare:
        assert bare.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            bare.config_get("*")
    with client(made) as own, client(made, "") as owner:
        assert own.ping() and owner.ping()
    again = provision(driver)
    with redis.Redis(again.host, again.port, retry=Retry(NoBackoff(), 0)) as closed, pytest.raises(redis.exceptions.AuthenticationError):
        closed.ping()


def test_rotation_overlaps_for_clients_that_are_connected(driver: ValkeyDriver) -> None:
    """A connection goes on, and new ones open with both passwords, until the old one is retired: then its connections end too."""
    made = provision(driver)
    old = client(made)
    assert old.ping()
    fresh = driver.rotate(ID, "web")
    assert old.ping()
    with client(made) as second, redis.Redis.from_url(fresh.url, retry=Retry(NoBackoff(), 0)) as new:
        assert second.ping() and new.ping()
        driver.retire_old(ID, "web")
        with pytest.raises(redis.exceptions.ConnectionError):
            old.ping()
    with redis.Redis.from_url(fresh.url) as new:
        assert new.ping()
    with client(made) as refused, pytest.raises(redis.exceptions.AuthenticationError):
        refused.ping()
