"""The embedded servers: durable, alone, gone with their owner, and there again after any death."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest
import redis

from cli.local.embedded import AlreadyRunning, Embedded, Urls
from cli.local.ownership import reachable
from tests.waiting import HANG, alive, gone

OWNER = """
import signal, sys
from pathlib import Path
from cli.local.embedded import Embedded

embedded = Embedded(Path(sys.argv[1]), durable=False)
embedded.start()
print(embedded.postgres.pid, embedded.valkey.pid, flush=True)
signal.pause()
"""


@pytest.fixture
def home():
    folder = Path(tempfile.mkdtemp(prefix="onward-embedded-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def embedded(home):
    started = Embedded(home, durable=False)
    started.start()
    yield started
    started.stop()


def connect(urls: Urls) -> psycopg.Connection:
    return psycopg.connect(urls.database_url.replace("+psycopg", ""), autocommit=True)


def write(urls: Urls, value: int) -> None:
    with connect(urls) as database:
        database.execute("CREATE TABLE IF NOT EXISTS seen (value int)")
        database.execute("INSERT INTO seen VALUES (%s)", [value])
    with redis.Redis.from_url(urls.redis_url) as client:
        client.rpush("seen", value)


def seen(urls: Urls) -> tuple[list[int], list[int]]:
    with connect(urls) as database, redis.Redis.from_url(urls.redis_url) as client:
        rows = database.execute("SELECT value FROM seen ORDER BY value").fetchall()
        return [row[0] for row in rows], [int(value) for value in client.lrange("seen", 0, -1)]


def test_a_restart_keeps_data_urls_and_nothing_running(home):
    first = Embedded(home, durable=False)
    urls = first.start()
    write(urls, 1)
    pids = [first.postgres.pid, first.valkey.pid]
    first.stop()
    assert not any(alive(pid) for pid in pids)
    second = Embedded(home, durable=False)
    assert second.start() == urls
    assert seen(urls) == ([1], [1])
    second.stop()
    second.stop()


def test_one_server_at_a_time_can_be_restarted_killed_and_emptied(embedded):
    write(embedded.urls, 1)
    embedded.restart_postgres()
    embedded.kill_postgres()
    embedded.restart_postgres()
    with redis.Redis.from_url(embedded.urls.redis_url) as client:
        assert client.waitaof(1, 0, 0)[0] == 1  # what Valkey took is on disk
    embedded.valkey.kill()
    embedded.restart_valkey()
    assert seen(embedded.urls) == ([1], [1])
    embedded.restart_valkey(flush=True)
    assert seen(embedded.urls) == ([1], [])


def test_settings_that_durability_hangs_on(home):
    durable = Embedded(home)
    urls = durable.start()
    try:
        with connect(urls) as database:
            for name in ("fsync", "synchronous_commit", "full_page_writes"):
                assert database.execute(f"SHOW {name}").fetchone() == ("on",)
        with redis.Redis.from_url(urls.redis_url) as client:
            for name, value in {"appendonly": "yes", "maxmemory-policy": "noeviction"}.items():
                assert client.config_get(name) == {name: value}
    finally:
        durable.stop()


def test_nobody_comes_in_without_the_password(embedded):
    port = embedded.postgres.port
    for attempt in (
        f"postgresql://onward@127.0.0.1:{port}/postgres",
        f"postgresql://onward:x@127.0.0.1:{port}/postgres",
    ):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(attempt)
    with redis.Redis(port=embedded.valkey.port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    assert embedded.postgres.password not in repr(embedded.postgres)
    secrets = [embedded.home / "servers.json", embedded.home / "valkey" / "valkey.conf"]
    assert [oct(file.stat().st_mode & 0o777) for file in secrets] == ["0o600"] * 2


def test_a_home_has_one_owner(embedded, home):
    with pytest.raises(AlreadyRunning, match=str(os.getpid())):
        Embedded(home).start()
    write(embedded.urls, 1)
    assert seen(embedded.urls) == ([1], [1])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_the_servers_end_with_their_owner_and_the_next_owner_finds_the_data(home, death):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, home], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert all(alive(pid) for pid in pids)
    owner.send_signal(death)
    owner.wait()
    # At once, while they may still be on their way out.
    next_one = Embedded(home, durable=False)
    urls = next_one.start()
    assert all(gone(pid) for pid in pids)
    write(urls, 1)
    assert seen(urls) == ([1], [1])
    next_one.stop()


def test_servers_that_outlived_their_owner_are_ended_and_data_kept(home):
    """Where the system does not end them: both are left running, with their pid files, by an owner that forgets."""
    first = Embedded(home, durable=False)
    urls = first.start()
    write(urls, 1)
    left = [first.postgres.popen, first.valkey.popen]
    first._lock.close()
    second = Embedded(home, durable=False)
    urls = second.start()
    assert [process.wait(HANG) is not None for process in left] == [True, True]
    assert seen(urls) == ([1], [1])
    second.stop()


def test_pid_files_that_name_strangers_harm_nobody(home):
    first = Embedded(home, durable=False)
    first.start()
    first.stop()
    stranger = subprocess.Popen(["sleep", "infinity"])
    data = first.postgres.place() / "data"
    try:
        for file in (data / "postmaster.pid", home / "servers" / "valkey" / "pid"):
            file.write_text(f"{stranger.pid}\n{data}\n")
        second = Embedded(home, durable=False)
        second.start()
        assert stranger.poll() is None
        second.stop()
    finally:
        stranger.kill()
        stranger.wait()


def test_a_port_that_was_taken_meanwhile_is_replaced(home):
    first = Embedded(home, durable=False)
    first.start()
    port = first.postgres.port
    first.stop()
    with socket.create_server(("127.0.0.1", port)):
        second = Embedded(home, durable=False)
        write(second.start(), 1)
        assert second.postgres.port != port
        second.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a folder that others cannot reach and servers that must")
def test_a_home_that_only_root_can_reach(home):
    home.chmod(0o700)
    embedded = Embedded(home, durable=False)
    write(embedded.start(), 1)
    place = embedded.postgres.place()
    assert not place.is_relative_to(home)
    assert reachable(place, 65534)
    assert not reachable(home / "servers", 65534)
    postgres = embedded.postgres
    embedded.stop()
    home.chmod(0o755)  # reachable now, and yet the data stay where they are
    assert reachable(home, 65534)
    assert postgres.place() == place
    shutil.rmtree(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="tells whose processes they are")
def test_postgres_never_runs_as_root(embedded):
    assert Path(f"/proc/{embedded.postgres.pid}").stat().st_uid != 0
