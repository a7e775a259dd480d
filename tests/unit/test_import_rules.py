"""Who may import whom (DESIGN §2), read from the source: hatch_uxdp → uxdp_cc → uxdp_bundle ← uxdp_runtime.

Inside of the runtime there are layers. A module of one may reach the layers below it and no other, whether it imports
them itself or through modules that belong to none (errors, for one).
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "uxdp_bundle": ROOT / "uxdp_bundle",
    "uxdp_cc": ROOT / "clang-wrapper" / "uxdp_cc",
    "hatch_uxdp": ROOT / "hatch_plugin" / "hatch_uxdp",
    "uxdp_runtime": ROOT / "runtime" / "uxdp_runtime",
}
ALLOWED = {
    "uxdp_bundle": {"uxdp_bundle"},
    "uxdp_cc": {"uxdp_cc", "uxdp_bundle"},
    "hatch_uxdp": {"hatch_uxdp", "uxdp_cc", "uxdp_bundle"},
    "uxdp_runtime": {"uxdp_runtime", "uxdp_bundle"},
}
# cli → serve → {compile, ports} → verify → bpf: what each layer may reach besides itself.
BELOW = {
    "bpf": set(),
    "verify": {"bpf"},
    "compile": {"verify", "bpf"},
    "ports": {"verify", "bpf"},
    "serve": {"compile", "ports", "verify", "bpf"},
    "cli": {"serve", "compile", "ports", "verify", "bpf"},
}
# LLVM handles a bundle's bytes in confined children alone; these run there.
IN_CHILDREN = {"uxdp_bundle.ir_rules", "uxdp_bundle.lowering_child"}

Graph = dict[str, set[str]]


def modules_of(package: str, folder: Path) -> dict[str, Path]:
    """Return the modules of a package by name."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


def imported(module: str, path: Path, source: str) -> Iterator[str]:
    """Yield what a module imports, wherever in it: absolute names, of modules or of things in them."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join((*base, *([node.module] if node.module else [])))
            yield origin
            for alias in node.names:
                yield f"{origin}.{alias.name}"


def import_graph(package: str) -> Graph:
    return {
        module: set(imported(module, path, path.read_text()))
        for module, path in modules_of(package, PACKAGES[package]).items()
    }


def foreign_imports(package: str, graph: Graph) -> list[str]:
    """Return the imports of our packages that a package may not import."""
    return [
        f"{module} imports {name}"
        for module, names in graph.items()
        for name in sorted(names)
        if (top := name.partition(".")[0]) in ALLOWED and top not in ALLOWED[package]
    ]


def layer(module: str) -> str:
    """Return the layer of a module of the runtime, or nothing."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "uxdp_runtime" and parts[1] in BELOW else ""


def upward_imports(graph: Graph) -> list[str]:
    """Return the ways from a layer of the runtime to one that is not below it."""
    found = []
    for start in graph:
        own = layer(start)
        if not own:
            continue
        ways = {start: start}
        work = [start]
        for module in work:
            for name in sorted(graph.get(module, ())):
                if layer(name) in {own, ""} or layer(name) in BELOW[own]:
                    if name in graph and name not in ways:
                        ways[name] = f"{ways[module]} → {name}"
                        # Another layer answers for itself.
                        work += [name] if layer(name) in {own, ""} else []
                else:
                    found.append(f"{ways[module]} → {name}")
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_what_it_may(package):
    graph = import_graph(package)
    assert len(graph) > 1
    assert foreign_imports(package, graph) == []


def test_runtime_layers_import_only_those_below():
    assert upward_imports(import_graph("uxdp_runtime")) == []


def test_llvm_is_imported_only_where_it_runs_confined():
    graph = import_graph("uxdp_bundle") | import_graph("uxdp_cc") | import_graph("hatch_uxdp")
    importing = {module for module, names in graph.items() if any(n.partition(".")[0] == "llvmlite" for n in names)}
    assert importing <= IN_CHILDREN


# The rules themselves.


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b", {"a.b"}),
        ("from a import b", {"a", "a.b"}),
        ("from . import x", {"p.q", "p.q.x"}),
        ("from .m import x", {"p.q.m", "p.q.m.x"}),
        ("from ..m import x", {"p.m", "p.m.x"}),
        ("def f():\n    from .m import x", {"p.q.m", "p.q.m.x"}),
    ],
)
def test_imported_names_are_absolute(source, names):
    assert set(imported("p.q.r", Path("r.py"), source)) == names


def test_imported_names_of_a_package_are_its_own():
    assert set(imported("p.q", Path("__init__.py"), "from .m import x")) == {"p.q.m", "p.q.m.x"}


@pytest.mark.parametrize(
    ("package", "name", "wrong"),
    [
        ("uxdp_bundle", "uxdp_runtime.cli", True),
        ("uxdp_bundle", "uxdp_cc", True),
        ("uxdp_cc", "uxdp_runtime", True),
        ("uxdp_runtime", "uxdp_cc.build", True),
        ("uxdp_runtime", "hatch_uxdp", True),
        ("hatch_uxdp", "uxdp_cc.build", False),
        ("uxdp_cc", "uxdp_bundle.facts", False),
        ("uxdp_bundle", "click", False),
    ],
)
def test_foreign_imports_are_found(package, name, wrong):
    assert bool(foreign_imports(package, {f"{package}.m": {name}})) is wrong


def of_runtime(**imports: str) -> Graph:
    return {
        f"uxdp_runtime.{module.replace('__', '.')}": {f"uxdp_runtime.{name}" for name in names.split()}
        for module, names in imports.items()
    }


@pytest.mark.parametrize(
    ("graph", "wrong"),
    [
        pytest.param(of_runtime(cli__a="serve.b", serve__b="ports.c compile.d verify.e bpf.f"), False, id="downward"),
        pytest.param(of_runtime(cli__a="cli.b errors", verify__c="verify.d"), False, id="inside"),
        pytest.param(of_runtime(bpf__a="verify"), True, id="bpf-to-verify"),
        pytest.param(of_runtime(verify="compile.a"), True, id="verify-to-compile"),
        pytest.param(of_runtime(compile__a="ports.b"), True, id="compile-to-ports"),
        pytest.param(of_runtime(ports__a="compile"), True, id="ports-to-compile"),
        pytest.param(of_runtime(serve__a="cli.output"), True, id="serve-to-cli"),
        pytest.param(of_runtime(verify__a="errors", errors="stores", stores="serve.b"), True, id="through-others"),
        pytest.param(of_runtime(errors="cli.output"), False, id="of-no-layer"),
        pytest.param(of_runtime(verify__a="bpf.b", bpf__b="errors", errors="bpf.c"), False, id="back-to-itself"),
    ],
)
def test_upward_imports_are_found(graph, wrong):
    assert bool(upward_imports(graph)) is wrong
