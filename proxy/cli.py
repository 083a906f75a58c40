"""The `weir` command."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import logging
import os
import pathlib
import signal
import sys
from typing import TYPE_CHECKING

import orjson
import uvloop
from typing_extensions import override

from proxy import app, config, explain, keys, ledger, logs, narration, process, registry, veil, workers
from proxy.source import ConfigError
from proxy.wording import flow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pydantic.fields import FieldInfo

log = logging.getLogger("weir")

DEFAULT_CONFIG = "config/config.yaml"
SHIPPED_CONFIG = pathlib.Path(__file__).parent / "shipped" / "config.yaml"
"""The same, with its prices, as the wheel brings it along for those who have no checkout."""


class Parser(argparse.ArgumentParser):
    """What is left over is told by the command that got it, with its own usage."""

    @override
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown


class Version(argparse.Action):
    @override
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"weir {importlib.metadata.version('weir-proxy')}")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head` has seen enough; what is still in the buffer has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(prog="weir", description="A sidecar reverse proxy for LLM traffic.")
    parser.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the proxy", description="Run the proxy until SIGTERM or SIGINT.")
    serve.add_argument(
        "--config",
        metavar="FILE",
        default=os.environ.get("WEIR_CONFIG") or _found_config(),
        help=f"the config file (default: $WEIR_CONFIG, else {DEFAULT_CONFIG}, else the one that Weir brings along)",
    )
    serve.set_defaults(run=_serve)

    check = commands.add_parser(
        "check", help="say what is wrong with a config", description="Everything of a start but the sockets."
    )
    check.add_argument("file", metavar="FILE", help="the config file")
    check.set_defaults(run=_check)

    explain.add_command(commands)

    demo = commands.add_parser(
        "demo",
        help="see it work: a demo upstream, the proxy, and a few live calls",
        description="Start a demo upstream and the proxy, make a few live calls, and show what Weir adds to them.",
    )
    demo.set_defaults(run=_demo)

    plugins = commands.add_parser(
        "plugins",
        help="list the installed plugins and their settings",
        description="List the installed plugins: name, class, package, and each setting of theirs with its default.",
    )
    plugins.set_defaults(run=_plugins)

    keys.add_command(commands)
    ledger.add_command(commands)

    schema = commands.add_parser(
        "schema",
        help="print the JSON Schema of config.yaml, for editors",
        description="Print the JSON Schema of config.yaml, for editors. Settings of plugins are not in it.",
    )
    schema.set_defaults(run=_schema)
    return parser


def _found_config() -> str:
    has_own = pathlib.Path(DEFAULT_CONFIG).exists() or not SHIPPED_CONFIG.exists()
    return DEFAULT_CONFIG if has_own else str(SHIPPED_CONFIG)


def _serve(options: argparse.Namespace) -> int:
    logs.configure()
    plan = app.Plan.load(options.config)
    try:
        if plan.config.server.workers > 1:
            return workers.serve(plan)
        process.make_room_for_sockets()
        uvloop.run(_run(plan))
    except OSError as error:
        print(f"weir: cannot listen: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


async def _run(plan: app.Plan) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with app.running(plan) as weir:
        if weir.reloads is not None:
            loop.add_signal_handler(signal.SIGHUP, weir.reloads.ask)
        log.info("listening", extra={"url": weir.url, "admin": weir.admin_url, "config": str(plan.source.file)})
        process.calm_collector()
        await stop.wait()
        log.info("draining", extra={"in_flight": weir.in_flight})
        await weir.drain(weir.plan.config.server.drain_timeout)
    log.info("stopped")


def _check(options: argparse.Namespace) -> int:
    plan = app.Plan.load(options.file)
    for warning in plan.warnings():
        print(f"{options.file}: warning: {warning}", file=sys.stderr)
    routes, plugins = len(plan.config.routes), len(plan.config.plugins)
    print(f"{options.file}: ok ({len(plan.config.upstreams)} upstreams, {routes} routes, {plugins} plugins)")
    return 0


def _demo(_: argparse.Namespace) -> int:
    from proxy import tour  # noqa: PLC0415 - the proxy itself needs none of it

    return uvloop.run(tour.run())


def _plugins(_: argparse.Namespace) -> int:
    points = registry.installed()
    if not points:
        print("no plugins are installed (entry-point group weir.plugins)")
    for name, point in sorted(points.items()):
        package = point.dist.name if point.dist else "?"
        print(f"{name}  ({point.value}, {package})")
        with contextlib.suppress(Exception):
            for field, info in point.load().Config.model_fields.items():
                print(_setting(field, info))
    return 0


def _setting(name: str, field: FieldInfo) -> str:
    line = f"    {name}: {field.description or ''}".rstrip(": ")
    if field.is_required():
        return f"{line} (required)"
    default = veil.default_of(field)
    says_nothing = default in ("", "its defaults") or not narration.says(default)
    return line if says_nothing else f"{line} (default: {flow(default)})"


def _schema(_: argparse.Namespace) -> int:
    print(orjson.dumps(config.Config.model_json_schema(), option=orjson.OPT_INDENT_2).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
