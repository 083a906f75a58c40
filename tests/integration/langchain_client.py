"""LangChain's OpenAI chat model against a server: `python langchain_client.py BASE_URL MODEL` prints what it received.

It runs in an environment of its own, with `langchain-openai` and `orjson`.
"""

# Its packages are in that environment only.
# mypy: ignore-errors

import asyncio
import sys
from typing import Any

import orjson
from langchain_core.messages import BaseMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

ASKED = "What is the weather in Rome?"


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


def plain(message: BaseMessage) -> dict[str, Any]:
    """Without LangChain's own run ids, which are new in each run."""
    return message.model_dump(mode="json", exclude={"id"})


async def received(base_url: str, model: str) -> dict[str, Any]:
    chat = ChatOpenAI(base_url=base_url, model=model, api_key="sk-test", temperature=0, max_retries=0, max_tokens=24)
    tooled = chat.bind_tools([get_weather])
    new = ChatOpenAI(base_url=base_url, model=model, api_key="sk-test", max_retries=0, use_responses_api=True)
    embeddings = OpenAIEmbeddings(
        base_url=base_url, model=model, api_key="sk-test", check_embedding_ctx_length=False, max_retries=0
    )
    return {
        "invoke": plain(chat.invoke(ASKED)),
        "stream": [plain(chunk) for chunk in chat.stream(ASKED)],
        "ainvoke": plain(await chat.ainvoke(ASKED)),
        "astream": [plain(chunk) async for chunk in chat.astream(ASKED)],
        "batch": [plain(one) for one in await chat.abatch(["one", "two", "three"])],
        "tools": plain(tooled.invoke(ASKED)),
        "tools, streamed": [plain(chunk) for chunk in tooled.stream(ASKED)],
        "responses": plain(new.invoke(ASKED)),
        "responses, streamed": [plain(chunk) for chunk in new.stream(ASKED)],
        "embeddings": embeddings.embed_documents(["a", "ü"]),
    }


if __name__ == "__main__":
    answer = asyncio.run(received(sys.argv[1], sys.argv[2]))
    sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
