"""Anthropic's own SDK against a server: `python anthropic_client.py ROOT HEADER NAME...` prints what it received.

Each name is asked for in that header: whole, and as a stream. It runs in an environment of its own, with `anthropic`.
"""

# Its packages are in that environment only.
# mypy: ignore-errors

import json
import sys
from typing import Any

import anthropic

ASK = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]}


def received(client: anthropic.Anthropic, headers: dict[str, str], *, streamed: bool) -> Any:
    try:
        if not streamed:
            return client.messages.create(**ASK, extra_headers=headers).model_dump(mode="json")
        with client.messages.stream(**ASK, extra_headers=headers) as stream:
            events = [event.type for event in stream]
            return events, stream.get_final_message().model_dump(mode="json")
    except anthropic.APIError as error:
        return type(error).__name__, str(error)


def main(root: str, header: str, *names: str) -> None:
    with anthropic.Anthropic(base_url=root, api_key="sk-app", max_retries=0) as client:
        told = [received(client, {header: name}, streamed=name.endswith("streamed")) for name in names]
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
