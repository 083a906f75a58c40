"""What the demo says, and how it falls into tokens: the same words for the same digest."""

import re

OPENINGS = ("Hello! 👋", "Hi there 🙂", "Bonjour 🥐", "Good to hear from you ✨", "Greetings from localhost 🏠")
CORES = (
    "This is the demo upstream of Weir answering: no model runs here, but the stream is a real one, token by token.",
    "You reached Weir's built-in demo upstream. Weir stands between your app and its LLM servers and minds the stream.",
    "I am Weir's demo upstream, so I only know one subject: Weir, a sidecar proxy that keeps LLM traffic in its banks.",
    "No GPU was warmed for this: the demo upstream of Weir, a proxy for LLM traffic, wrote it on your machine.",
)
CLOSINGS = (
    "Set OPENAI_API_KEY and restart Weir to reach a real model. Until then: enjoy your café ☕",
    "Name an upstream in config.yaml (OpenAI, vLLM, TGI) and this very request gets a real answer. Voilà, réglé.",
    "Everything your app sends now works the same with a real upstream behind Weir. Déjà vu guaranteed 🔁",
)
ECHOED_WORDS = 8
ECHOED_CHARACTERS = 80

# Like a BPE vocabulary's pieces: a word with the space before it, long words in parts, numbers by three digits.
_PIECE = re.compile(r" ?[^\W\d_]{1,8}|\d{1,3}|[\w]| ?[^\w\s]+|\s+")
_WORD = re.compile(r"[^\W_]+")


def tokens(text: str) -> list[str]:
    """Its parts, which join to ``text`` again."""
    return _PIECE.findall(text)


def echo(text: str) -> str:
    return " ".join(text[: 10 * ECHOED_CHARACTERS].split()[:ECHOED_WORDS])[:ECHOED_CHARACTERS]


def reply(said: str, tool_result: str | None, digest: bytes) -> str:
    opening, core, closing = (pick[digest[at] % len(pick)] for at, pick in enumerate((OPENINGS, CORES, CLOSINGS)))
    return f"{opening} {_reference(said, tool_result)} {core} {closing}"


def _reference(said: str, tool_result: str | None) -> str:
    if tool_result is not None:
        return f"The tool answered “{echo(tool_result)}”."
    return f"You said “{echo(said)}”." if said.strip() else "You said nothing yet."


def subject(said: str) -> str:
    """The word that an argument of a tool call would most likely be: the last name, else the last word."""
    words: list[str] = _WORD.findall(said[-1000:])
    names = [word for word in words[1:] if word[0].isupper()]
    return (names or words or ["demo"])[-1]
