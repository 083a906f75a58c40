"""Weir: a sidecar reverse proxy for LLM traffic. Plugins import `proxy.plugin`, their tests `proxy.testing`."""
