"""Which server has a key: real servers, alone, behind a Sentinel, in a cluster, over TLS and a socket in the file system."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import ssl
import time

import hiredis
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from proxy.store import commands, topology
from proxy.store.pipe import Unanswered
from proxy.store.servers import NO_ANSWER, connected, slot
from proxy.store.url import parse
from tests import redis_server
from tests.redis_server import RedisServer, Sentinel

SECONDS = 20


@contextlib.asynccontextmanager
async def servers(url: str):
    found = await connected(parse(url), lambda _: None, lambda _: None)
    try:
        yield found
    finally:
        found.close()


async def test_one_server(redis):
    async with servers(redis.url) as found:
        assert await found.pipe("bob").call("SET", "k", "v") == b"OK"
        assert found.is_open
    assert redis.ask("GET", "k") == "v"


async def test_a_database_of_its_own(redis):
    async with servers(f"{redis.url}/3") as found:
        await found.pipe("bob").call("SET", "k", "v")
    assert redis.ask("INFO", "keyspace").splitlines()[1].startswith("db3:keys=1")


async def test_a_password_with_a_user_and_without(tmp_path):
    with redis_server.running(tmp_path, "--requirepass", "s3cret", password="s3cret") as redis:
        redis.ask("ACL", "SETUSER", "weir", "on", ">w:/@", "~weir:*", "+@all")
        for credentials in (":s3cret", "weir:w%3A%2F%40"):
            async with servers(f"redis://{credentials}@127.0.0.1:{redis.port}") as found:
                assert await found.pipe("bob").call("SET", commands.key("bob", "k"), "v") == b"OK"
        for credentials in ("", ":wrong@", "weir:wrong@"):
            with pytest.raises(hiredis.ReplyError, match=r"NOAUTH|WRONGPASS"):
                await connected(parse(f"redis://{credentials}127.0.0.1:{redis.port}"), print, print)


async def test_a_socket_in_the_file_system(tmp_path):
    with redis_server.running(tmp_path, "--unixsocket", str(tmp_path / "redis.sock")):
        async with servers(f"unix://{tmp_path}/redis.sock") as found:
            assert await found.pipe("bob").call("PING") == b"PONG"


def certificate(folder) -> None:
    """Signed by itself, for 127.0.0.1 and localhost."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - dt.timedelta(1), now + dt.timedelta(1))
    made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    signed = made.sign(key, hashes.SHA256())
    (folder / "ca.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.mark.skipif(not redis_server.has_tls(), reason="this redis-server was built without TLS")
async def test_tls_with_an_authority_of_its_own(tmp_path):
    certificate(tmp_path)
    ca, key = str(tmp_path / "ca.pem"), str(tmp_path / "key.pem")
    options = ("--tls-cert-file", ca, "--tls-key-file", key, "--tls-ca-cert-file", ca, "--tls-auth-clients", "no")
    with redis_server.running(tmp_path, *options, tls=ssl.create_default_context(cafile=ca)) as redis:
        for query in (f"ca_file={ca}", "verify=false"):
            async with servers(f"rediss://127.0.0.1:{redis.port}?{query}") as found:
                assert await found.pipe("bob").call("PING") == b"PONG"
        with pytest.raises(ssl.SSLCertVerificationError):
            await connected(parse(f"rediss://127.0.0.1:{redis.port}"), print, print)


async def test_nobody_there(redis):
    redis.kill()
    with pytest.raises(ConnectionRefusedError):
        await connected(parse(redis.url), print, print)


async def test_a_server_that_is_frozen_is_no_server(redis):
    redis.freeze()
    with pytest.raises(Unanswered):
        await connected(parse(redis.url), print, print)
    redis.thaw()


async def test_a_server_that_forgot_its_scripts_learns_them_again(redis):
    async with servers(redis.url) as found:
        redis.ask("SCRIPT", "FLUSH")
        for _ in range(2):
            answer = found.pipe("bob")._loop.create_future()
            found.run(answer, "renew", "bob", commands.renew("bob", "slots", 8000, ["a"]))
            assert await answer == 1
    assert "cmdstat_eval:calls=1," in redis.ask("INFO", "commandstats")


async def test_the_slot_of_a_subject_is_that_of_its_keys(tmp_path):
    with redis_server.running(tmp_path, "--cluster-enabled", "yes") as node:
        for subject in ("", "bob", "}{", "{a}", "ü", "a b"):
            assert node.ask("CLUSTER", "KEYSLOT", commands.key(subject, "k")) == slot(subject)


async def test_a_cluster_has_each_subject_on_one_of_its_servers(cluster):
    async with servers(f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster[0].port}") as found:
        assert len(found.pipes) == 3
        subjects = [f"user {number}" for number in range(50)]
        for subject in subjects:
            assert await found.pipe(subject).call("SET", commands.key(subject, "k"), "v") == b"OK"
        assert {found.pipe(subject) for subject in subjects} == set(found.pipes)


async def test_a_server_that_is_no_cluster_says_so(redis):
    with pytest.raises(OSError, match="cluster support disabled"):
        await connected(parse(f"redis+cluster://127.0.0.1:{redis.port}"), print, print)


async def test_the_primary_that_sentinels_name_changes(tmp_path, redis):
    with contextlib.ExitStack() as stack:
        replica = stack.enter_context(redis_server.running(tmp_path, "--replicaof", "127.0.0.1", str(redis.port)))
        sentinel = Sentinel(tmp_path, redis)
        stack.callback(sentinel.kill)
        sentinel.start()
        until(lambda: "slaves=1" in sentinel.ask("INFO", "sentinel"))
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/main"
        async with servers(url) as found:
            await found.pipe("bob").call("SET", "k", "v")
        assert redis.ask("GET", "k") == "v"
        until(lambda: replica.ask("GET", "k") == "v")
        redis.kill()
        async with asyncio.timeout(SECONDS):
            while await primary_port(url) != replica.port:  # noqa: ASYNC110 - polled, bounded
                await asyncio.sleep(0.05)
        async with servers(url) as found:
            assert await found.pipe("bob").call("GET", "k") == b"v"
            assert await found.pipe("bob").call("SET", "k", "w") == b"OK"


async def test_sentinels_that_do_not_know_it_say_so(tmp_path, redis):
    sentinel = Sentinel(tmp_path, redis)
    try:
        sentinel.start()
        with pytest.raises(OSError, match="no Sentinel knows a primary 'other'"):
            await connected(parse(f"redis+sentinel://127.0.0.1:{sentinel.port}/other"), print, print)
    finally:
        sentinel.kill()


def test_every_failure_to_connect_is_foreseen():
    assert all(issubclass(error, NO_ANSWER) for error in (TimeoutError, ssl.SSLError, hiredis.ReplyError, Unanswered))


async def primary_port(url: str) -> int | None:
    """None while the Sentinel is not sure of one."""
    with contextlib.suppress(OSError):
        return (await topology.primary(parse(url)))[1]
    return None


def until(condition) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three primaries."""
    folder = tmp_path_factory.mktemp("cluster")
    with contextlib.ExitStack() as stack:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
        nodes: list[RedisServer] = [stack.enter_context(redis_server.running(folder, *options)) for _ in range(3)]
        redis_server.make_cluster(nodes)
        yield nodes
