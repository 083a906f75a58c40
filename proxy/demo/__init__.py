"""The demo upstream: an OpenAI-compatible server without a model, which streams as a real one does.

It answers ``weir serve`` as long as no API key is set, ``weir demo``, and the test-suite. Bodies are the same bytes for
the same request during one run of the server (``created`` is its start); headers and uploads are of their moment.

These models fail on purpose, so that every way a stream can end may be tried:

=================  =====================================================================================
``demo-slow``      the first token, and the headers with it, come after 2 s
``demo-cut``       the connection drops after 5 tokens, or before the headers where nothing is streamed
``demo-error``     an error event after 5 tokens, then the end without ``[DONE]``; a 500 where nothing is streamed
``demo-429``       429 ``rate_limit_exceeded`` with ``retry-after``, on every endpoint that names a model
``demo-500``       500 ``server_error``, likewise
``unknown-model``  404 ``model_not_found``, likewise; every other name is served and echoed
=================  =====================================================================================

``Authorization: Bearer wrong-key`` is refused with 401, any other credential is taken. ``ignore_eos: true`` (vLLM's)
talks on until ``max_tokens``, 4096 at most. ``GET /demo/stats`` counts requests, active and cancelled ones, and tokens.
"""

from proxy.demo.server import application, running

__all__ = ["application", "running"]
