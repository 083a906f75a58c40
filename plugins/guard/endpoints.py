"""Where the bodies of each endpoint hold what the rules judge.

An endpoint is known by the end of its path, decoded: servers also answer below other prefixes than `/v1`, without any,
and to `/v1/chat%2Fcompletions`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from proxy.plugin import ClientFault

_SEEN = 1024
_DEPLOYMENT = re.compile("/(?:deployments|engines)/([^/]+)/", re.IGNORECASE)


@dataclass(frozen=True, eq=False, slots=True)
class Endpoint:
    """Keys of its JSON: `caps` bound the answer, `choices` count answers, the values of `texts` are the prompt.

    `inside` names the object that caps and choices lie in, where it is not the body. `dialogue` is the list of
    messages, or a text where the endpoint `takes_text` for it. `tools` are part of the prompt as they stand.
    """

    caps: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    inside: str = ""
    dialogue: str = ""
    takes_text: bool = False
    names_model: bool = True
    may_be_form: bool = False

    def named(self, key: str) -> str:
        """A key among caps and choices as an error names it."""
        return f"{self.inside}.{key}" if self.inside else key


CHAT = Endpoint(
    caps=("max_tokens", "max_completion_tokens"),
    choices=("n",),
    texts=("messages",),
    tools=("tools", "functions"),
    dialogue="messages",
)
COMPLETIONS = Endpoint(caps=("max_tokens",), choices=("n", "best_of"), texts=("prompt", "suffix"))
RESPONSES = Endpoint(
    caps=("max_output_tokens",),
    texts=("input", "instructions"),
    tools=("tools",),
    dialogue="input",
    takes_text=True,
)
MESSAGES = Endpoint(caps=("max_tokens",), texts=("system", "messages"), tools=("tools",), dialogue="messages")
COMPACT = Endpoint(texts=("input", "instructions"), dialogue="input", takes_text=True)
INPUT = Endpoint(texts=("input",))
SPEECH = Endpoint(texts=("input", "instructions"))
IMAGES = Endpoint(choices=("n",), texts=("prompt",))
FORM = Endpoint(may_be_form=True)
GENERATE = Endpoint(
    caps=("max_new_tokens",), choices=("best_of",), texts=("inputs",), inside="parameters", names_model=False
)
INVOCATIONS = Endpoint()
"""SageMaker's: what its body is tells which one it stands for."""

_INVOKED = {"inputs": GENERATE, "messages": CHAT, "prompt": COMPLETIONS}

_ENDS = {
    "/chat/completions": CHAT,
    "/completions": COMPLETIONS,
    "/responses": RESPONSES,
    "/responses/compact": COMPACT,
    "/v1/messages": MESSAGES,
    "/embeddings": INPUT,
    "/moderations": INPUT,
    "/images/generations": IMAGES,
    "/audio/speech": SPEECH,
    "/audio/transcriptions": FORM,
    "/audio/translations": FORM,
    "/images/edits": FORM,
    "/images/variations": FORM,
}
_WHOLE = {"": GENERATE, "/generate": GENERATE, "/generate_stream": GENERATE, "/invocations": INVOCATIONS}

ENDPOINTS = frozenset({*_ENDS.values(), *_WHOLE.values()})


@lru_cache(_SEEN)
def endpoint_of(path: str) -> Endpoint | None:
    """None where nothing is judged."""
    plain = unquote(path).lower().rstrip("/")
    if plain in _WHOLE:
        return _WHOLE[plain]
    return next((endpoint for end, endpoint in _ENDS.items() if plain.endswith(end)), None)


@lru_cache(_SEEN)
def deployment_of(path: str) -> str | None:
    """The model that the path names, as Azure's do."""
    found = _DEPLOYMENT.search(unquote(path))
    return found[1] if found else None


def invoked(body: dict[str, Any]) -> Endpoint:
    """What `/invocations` means with this body: servers do not agree where it could mean two."""
    meant = [key for key in _INVOKED if key in body]
    if len(meant) > 1:
        raise ClientFault(f"the body has '{meant[0]}' and '{meant[1]}'; send one of them", param=meant[1])
    return _INVOKED[meant[0]] if meant else INVOCATIONS
