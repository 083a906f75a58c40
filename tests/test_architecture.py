"""The shape of the house (DESIGN §1), read from the source: who may import whom, and what an import may cost."""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]

LAYERS = (
    "errors sse usage headers encoding body document wording stages logs downstream series lines watch process merge pulse lag kind upstream admission store store.counts",
    "feedback store.claims store.url websocket retry_after answer complaint seam upstream.switched upstream.mask upstream.query upstream.token upstream.pace upstream.work prompt",
    "store.memory changes store.commands store.topology exchange attempt request response scalars prices source relay realtime fault fit upstream.dial upstream.incoming upstream.dialects",
    "admin services store.pipe reload store.divided",
    "desk crew store.leases store.servers metrics routing keys preview json_relay static consumption tariff targets queue upstream.health upstream.warming upstream.readings splice flight upstream.credentials",
    "store.link plugin upstream.settings upstream.taxonomy balance buffer refusals server tunnel upstream.connection",
    "store.debts config attempts upstream.pool upstream.repair",
    "store.shared registry upstream.openai",
    "chain upstream.azure upstream.tgi plan",
    "responses supply fleet",
    "gateway",
    "generation",
    "weir",
    "app",
    "testing tour workers",
    "veil findings sums",
    "destinations narration statement",
    "search",
    "explain",
    "ledger",
    "cli",
)
"""Bottom up: a module imports at run time only from lines above its own. `demo` stands apart: it knows only itself."""

USE_AIOHTTP = {"server", "admin", "desk", "crew", "app", "workers", "tour", "testing"}
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "manager", "managers", "misc", "impl"}

Imports = dict[str, set[str]]


def module_of(file: pathlib.Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run_time_imports(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Dotted names, also those within functions; not those for type checkers only."""
    for node in nodes:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from run_time_imports(ast.iter_child_nodes(node))


def imports(folder: str) -> Imports:
    files = sorted((ROOT / folder).rglob("*.py"))
    return {module_of(file): set(run_time_imports(ast.parse(file.read_text()).body)) for file in files}


CORE = imports("proxy")
PLUGINS = imports("plugins")


def modules(names: Iterable[str]) -> set[str]:
    """Which modules of the core these dotted names mean."""
    found = set()
    for name in names:
        inner = name
        while inner and inner not in CORE:
            inner = inner.rpartition(".")[0]
        found.add(inner)
    return found - {"", "proxy"}


def from_core(names: Iterable[str], allowed: str) -> list[str]:
    """What is imported from the core other than `allowed`."""
    of_core = {name for name in names if name == "proxy" or name.startswith("proxy.")}
    return sorted(name for name in of_core if name != allowed and not name.startswith(f"{allowed}."))


def layer(module: str) -> int:
    return next(at for at, line in enumerate(LAYERS) if module.removeprefix("proxy.") in line.split())


def test_every_module_of_the_core_has_its_place():
    placed = [f"proxy.{name}" for line in LAYERS for name in line.split()]
    assert sorted(placed) == sorted(name for name in CORE if name != "proxy" and not name.startswith("proxy.demo"))


def test_imports_point_one_way():
    upward = [
        f"{module} imports {other}"
        for module, names in CORE.items()
        if module != "proxy" and not module.startswith("proxy.demo")
        for other in modules(names) - {module}
        if not other.startswith("proxy.demo") and layer(other) >= layer(module)
    ]
    assert upward == []


def test_the_demo_knows_only_itself_and_only_supply_and_tour_know_it():
    within = {module for module in CORE if module.startswith("proxy.demo")}
    assert {other for module in within for other in modules(CORE[module])} <= within
    known_by = {module for module, names in CORE.items() if modules(names) & within} - within
    assert known_by == {"proxy.supply", "proxy.tour"}


def test_the_core_knows_no_plugin():
    assert [m for m, names in CORE.items() if any(n == "plugins" or n.startswith("plugins.") for n in names)] == []


@pytest.mark.parametrize("module", PLUGINS)
def test_plugins_know_the_core_only_through_the_contract(module: str):
    assert from_core(PLUGINS[module], "proxy.plugin") == []


def test_a_plugin_that_reached_into_the_core_would_be_seen():
    source = "import proxy.chain\nfrom proxy import relay\nfrom proxy.plugin import Plugin\ndef f():\n from proxy.sse import Event"
    assert from_core(run_time_imports(ast.parse(source).body), "proxy.plugin") == [
        "proxy.chain",
        "proxy.relay",
        "proxy.sse.Event",
    ]


def test_aiohttp_is_the_edges_business():
    users = {module for module, names in CORE.items() if any(name.split(".")[0] == "aiohttp" for name in names)}
    inside = {module.removeprefix("proxy.") for module in users if not module.startswith("proxy.demo")}
    assert inside == USE_AIOHTTP


def test_module_names_say_what_is_in_them():
    assert [name for name in (*CORE, *PLUGINS) if name.rpartition(".")[2] in NO_NAMES] == []


EACH_ALONE = """
import importlib, sys
dropped, *names = sys.argv[1:]
for name in names:
    for known in [known for known in sys.modules if known.split(".")[0] in dropped.split(",")]:
        del sys.modules[known]
    importlib.import_module(name)
"""
DOORS = ("proxy.cli", "proxy.plugin", "proxy.testing")


@pytest.mark.parametrize(("dropped", "names"), [("proxy,plugins", DOORS), ("plugins", tuple(PLUGINS))])
def test_every_door_and_every_module_of_plugins_imports_alone_and_without_warnings(dropped: str, names: tuple[str]):
    """That the core's modules do follows from its layers."""
    command = [sys.executable, "-W", "error", "-c", EACH_ALONE, dropped, *names]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_command_does_not_pay_for_what_only_some_need():
    asked = "import sys, proxy.cli; print(*sorted({'text_generation', 'openai', 'proxy.demo', 'proxy.search', 'opentelemetry'} & set(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, timeout=50, check=True
    )
    assert ran.stdout.strip() == ""
