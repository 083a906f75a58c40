"""Levels of a budget that were reached: logged, counted, and told to a webhook; each once per subject and period.

Who tells it first takes the only one that the store has of it, so that of several replicas one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import secrets
import urllib.request
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from plugins.budget.settings import MICRO
from proxy.plugin import Claim

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plugins.budget.account import Account, Purse
    from plugins.budget.settings import BudgetConfig
    from proxy.plugin import Services

POST_SECONDS = 5.0
PAUSES = (1.0, 5.0, 0.0)
"""After each try that failed."""

log = logging.getLogger("weir.budget")


class Alarms:
    def __init__(self, config: BudgetConfig, name: str, services: Services) -> None:
        self._config = config
        self._name = name
        self._services = services
        self._counted = services.counter(
            "weir_budget_warnings", "levels of budgets that were reached", ("budget", "level")
        )

    def ring(self, levels: Sequence[float], account: Account, purse: Purse) -> None:
        for level in levels:
            told = {
                "budget": self._name,
                "by": self._config.by,
                "subject": account.subject,
                "level": f"{level:.4%}".rstrip("0%").rstrip(".") + "%",
                "used_usd": dollars(account.used(purse)),
                "limit_usd": dollars(purse.limit),
                "period": purse.period.name,
                "ends": purse.period.ends.astimezone(self._config.time_zone).isoformat(),
            }
            self._services.tasks.start(self._ring(told, account, purse), "budget alarm")

    async def _ring(self, told: dict[str, Any], account: Account, purse: Purse) -> None:
        only = Claim("total", account.tag, f"{purse.key}:{told['level']}", 1, 1, purse.seconds, "open")
        taken = await self._services.store.take(secrets.token_hex(8), [only])
        if taken.refused is not None:
            return
        self._counted.add((self._name, told["level"]))
        log.warning("a budget has reached %s", told["level"], extra={"plugin": self._name, **told})
        if self._config.webhook:
            await self._post(self._config.webhook, told)

    async def _post(self, url: str, told: dict[str, Any]) -> None:
        """`text` is what chat systems show. The URL may be a secret: no log has it."""
        text = (
            f"Budget '{told['budget']}' of {told['by']} '{told['subject']}': {told['level']} of ${told['limit_usd']} "
            f"spent (${told['used_usd']}) in {told['period']}; it begins anew at {told['ends']}"
        )
        body, reason = orjson.dumps({"text": text, **told}), ""
        for pause in PAUSES:
            try:
                await asyncio.to_thread(_posted, url, body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = getattr(error, "reason", None) or type(error).__name__
                await asyncio.sleep(pause)
            else:
                return
        log.error("the webhook of a budget cannot be told", extra={"plugin": self._name, "reason": str(reason)})


def dollars(micro: int) -> str:
    return f"{(Decimal(micro) / MICRO).normalize():f}"


def _posted(url: str, body: bytes) -> None:
    """Blocks. Raises OSError, HTTPException or ValueError; an answer of 4xx or 5xx is an OSError too."""
    fields = {"content-type": "application/json", "user-agent": "weir"}
    request = urllib.request.Request(url, body, fields)  # noqa: S310 - the config's
    with contextlib.closing(urllib.request.urlopen(request, timeout=POST_SECONDS)):  # noqa: S310
        pass
