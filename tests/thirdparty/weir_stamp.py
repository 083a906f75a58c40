"""Stamps requests with a word, refuses those without an owner, and marks the answers."""

from proxy.plugin import Attempt, Exchange, Key, Plugin, PluginConfig, Rejected, Response

OWNER: Key[str] = Key("owner")


class Config(PluginConfig):
    word: str


class Stamp(Plugin[Config]):
    Config = Config
    provides = (OWNER,)

    async def on_request(self, exchange: Exchange) -> None:
        owner = exchange.request.headers.get("x-owner")
        if owner is None:
            raise Rejected("set x-owner", code="no_owner")
        exchange[OWNER] = owner

    async def on_attempt(self, exchange: Exchange, attempt: Attempt) -> None:
        attempt.headers["x-stamp"] = self.config.word

    async def on_response(self, exchange: Exchange, response: Response) -> None:
        response.headers["x-stamped-for"] = exchange[OWNER]
