"""How one writes where the store is."""

import ssl

import pytest

from proxy.store.url import StoreUrl, parse


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host", StoreUrl("single", (("host", 6379),))),
        ("redis://host:7000/2", StoreUrl("single", (("host", 7000),), db=2)),
        ("redis://host?timeout=200ms", StoreUrl("single", (("host", 6379),), timeout=0.2)),
        ("redis://[::1]:7000", StoreUrl("single", (("::1", 7000),))),
        ("redis://:p%40ss@host/", StoreUrl("single", (("host", 6379),), password="p@ss")),
        ("redis://weir:p:w@host", StoreUrl("single", (("host", 6379),), user="weir", password="p:w")),
        (
            "redis+sentinel://one,two:7000/main/3",
            StoreUrl("sentinel", (("one", 26379), ("two", 7000)), db=3, primary="main"),
        ),
        ("redis+cluster://:pw@one:7000,two", StoreUrl("cluster", (("one", 7000), ("two", 6379)), password="pw")),
        ("unix:///run/re%20dis.sock", StoreUrl("single", (("/run/re dis.sock", 0),), path="/run/re dis.sock")),
        (
            "unix://:pw@/run/redis.sock?db=4&timeout=1ms",
            StoreUrl("single", (("/run/redis.sock", 0),), path="/run/redis.sock", password="pw", db=4, timeout=0.001),
        ),
    ],
)
def test_what_may_be_written(url, expected):
    assert parse(url) == expected


@pytest.mark.parametrize("scheme", ["rediss", "rediss+sentinel", "rediss+cluster"])
def test_tls_trusts_what_the_system_trusts(scheme):
    tls = parse(f"{scheme}://host/{'main' if 'sentinel' in scheme else ''}").tls
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_tls_may_trust_any_certificate():
    tls = parse("rediss://host?verify=false").tls
    assert (tls.verify_mode, tls.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "is not the URL of a Redis"),
        ("host:6379", "is not the URL of a Redis"),
        ("http://host", "is not the URL of a Redis"),
        ("redis+ring://host", "is not the URL of a Redis"),
        ("redis://[::1", "is not the URL of a Redis"),
        ("redis://", "has no valid host and port"),
        ("redis://host:port", "has no valid host and port"),
        ("redis://host:70000", "has no valid host and port"),
        ("redis+cluster://one,,two", "has no valid host and port"),
        ("redis://weir@host", "names a user without a password"),
        ("redis://one,two", "names several hosts"),
        ("redis://host/cache", "names no database: a cluster has none, others have numbers"),
        ("redis://host/1/2", "names no database: a cluster has none, others have numbers"),
        ("redis://host/²", "names no database: a cluster has none, others have numbers"),
        ("redis+cluster://host/1", "names no database: a cluster has none, others have numbers"),
        ("redis+sentinel://host", "does not name the primary that the Sentinels watch"),
        ("redis://host?ca_file=/ca.pem", "has an option that it cannot have"),
        ("rediss://host?cafile=/ca.pem", "has an option that it cannot have"),
        ("redis://:hun?ter2@host", "has"),
        ("rediss://host?verify=no", "has a value of verify that is neither true nor false"),
        ("rediss://host?ca_file=/nowhere.pem", "names a ca_file that cannot be read"),
        ("redis://host?timeout=1s", "has a timeout that is none"),
        ("redis://host?timeout=0ms", "has a timeout that is none"),
        ("unix://", "names no socket"),
        ("unix://run/redis.sock", "names no socket"),
        ("unix:///run/redis.sock?name=1", "has an option that it cannot have"),
    ],
)
def test_what_may_not_be_written(url, what):
    with pytest.raises(ValueError, match=f"^{what}") as refused:
        parse(url)
    assert "ter2" not in str(refused.value)
