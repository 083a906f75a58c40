"""LitServe with its OpenAI spec and a model that says the last message again: `python litserve_server.py PORT`.

It runs in an environment of its own, with `litserve`. Of a message that begins with `fail` it breaks off in the middle.
"""

# Its packages are in that environment only.
# mypy: ignore-errors

import sys
from collections.abc import Iterator

import litserve
from litserve.specs.openai import ChatCompletionRequest


class Echo(litserve.LitAPI):
    def setup(self, device: str) -> None:
        """No model to load."""

    def predict(self, request: ChatCompletionRequest) -> Iterator[str]:
        words = request.messages[-1].content.split()
        for place, word in enumerate(words):
            if place and words[0] == "fail":
                raise RuntimeError("as it was asked to")
            yield f"{word} "

    def encode_response(self, output: Iterator[str]) -> Iterator[dict[str, object]]:
        for word in output:
            usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
            yield {"role": "assistant", "content": word, **usage}


if __name__ == "__main__":
    server = litserve.LitServer(Echo(spec=litserve.OpenAISpec()), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
