"""Where the servers are: redis-py asks the Sentinels or the cluster, seldom and without haste.

Commands do not pass through it: those have `Pipe`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.store.url import StoreUrl

    Address = tuple[str, int]

ANSWER_SECONDS = 0.5


async def primary(url: StoreUrl) -> Address:
    """That the first Sentinel which knows it names. Raises OSError.

    They are asked without a password first: those that want one get the servers'.
    """
    from redis.asyncio import Sentinel  # noqa: PLC0415 - five megabytes that few need
    from redis.exceptions import RedisError  # noqa: PLC0415

    failed: Exception | None = None
    for credentials in ({}, _credentials(url)) if url.password else ({},):
        sentinel: Any = Sentinel(url.hosts, sentinel_kwargs={**_options(url), **credentials})  # type: ignore[no-untyped-call]
        try:
            host, port = await sentinel.discover_master(url.primary)
        except RedisError as error:
            failed = error
        else:
            return str(host), int(port)
        finally:
            for client in sentinel.sentinels:
                await client.aclose()
    raise OSError(f"no Sentinel knows a primary '{url.primary}'") from failed


async def slots(url: StoreUrl) -> list[tuple[int, Address]]:
    """From which slot on which primary has them, as the first node that answers says. Raises OSError."""
    from redis.asyncio import Redis  # noqa: PLC0415 - likewise
    from redis.exceptions import RedisError  # noqa: PLC0415

    failed: Exception | None = None
    for host, port in url.hosts:
        client = Redis(host=host, port=port, **_options(url), **_credentials(url))
        try:
            return await _slots_of(client, host)
        except RedisError as error:
            failed = error
        finally:
            await client.aclose()
    raise OSError(f"no node of the cluster tells its slots: {failed}") from failed


async def _slots_of(client: Any, host: str) -> list[tuple[int, Address]]:
    """A node that does not know its own host has the one that we asked."""
    told: Any = await client.execute_command("CLUSTER SLOTS")
    return sorted((begin, ((at[0] or b"").decode() or host, int(at[1]))) for begin, _, at, *_ in told)


def _options(url: StoreUrl) -> dict[str, Any]:
    from redis.asyncio.retry import Retry  # noqa: PLC0415 - likewise
    from redis.backoff import NoBackoff  # noqa: PLC0415

    options: dict[str, Any] = {
        "socket_timeout": ANSWER_SECONDS,
        "socket_connect_timeout": ANSWER_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    if url.tls is not None:
        options |= {"ssl": True, "ssl_ca_certs": url.ca_file, "ssl_check_hostname": url.verify}
        options["ssl_cert_reqs"] = "required" if url.verify else "none"
    return options


def _credentials(url: StoreUrl) -> dict[str, Any]:
    return {"username": url.user or None, "password": url.password or None}
