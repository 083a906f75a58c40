"""Calls Weir now and then, so that the dashboards have something to show: `python traffic.py URL`, without end."""

import itertools
import json  # noqa: TID251 - runs without any package
import sys
import time
import urllib.error
import urllib.request

SECONDS = 0.5
WORDS = ("weir", "sluice", "mill race", "fish ladder", "lock")


def call(url: str, number: int) -> None:
    question = f"What is a {WORDS[number % len(WORDS)]}?" if number % 3 else f"Tell me of number {number}."
    body = {"model": "demo", "stream": number % 2 == 0, "messages": [{"role": "user", "content": question}]}
    headers = {"content-type": "application/json", "authorization": "Bearer any"}
    asked = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)  # noqa: S310
    with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
        answer.read()


if __name__ == "__main__":
    for number in itertools.count():
        try:
            call(sys.argv[1], number)
        except urllib.error.URLError as error:
            sys.stderr.write(f"{error}\n")
        time.sleep(SECONDS)
