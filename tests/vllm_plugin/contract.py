"""What a release of vLLM offers, read from its source without installing it, against what the plugin relies on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType


def moved(sources: Path, known: ModuleType) -> list[str]:
    """What differs between the vLLM under ``sources`` and what a version file (`v0_32`, ...) says, a line for each."""
    found = []
    for symbol, parameters in known.SIGNATURES.items():
        node = find(sources, symbol)
        if not isinstance(node, ast.FunctionDef):
            found.append(f"{symbol} is gone")
        elif (its := parameters_of(node)) != parameters:
            found.append(f"{symbol} takes {', '.join(its)} and not {', '.join(parameters)}")
    for symbol, methods in known.ABSTRACT.items():
        node = find(sources, symbol)
        if not isinstance(node, ast.ClassDef):
            found.append(f"{symbol} is gone")
        elif (names := tuple(sorted(abstract(node)))) != methods:
            found.append(f"{symbol} has the abstract methods {', '.join(names)} and not {', '.join(methods)}")
    for symbol, names in known.READS.items():
        node = find(sources, symbol)
        if node is None:
            found.append(f"{symbol} is gone")
        else:
            missing = sorted(set(names) - (attributes(sources, symbol) if isinstance(node, ast.ClassDef) else set()))
            found += [f"{symbol} has no {name}" for name in missing]
    return found


def find(sources: Path, symbol: str) -> ast.AST | None:
    """The definition of ``module:Class.method``, also where the module only imports it."""
    module, _, path = symbol.partition(":")
    tree = parse(sources, module)
    first, *rest = path.split(".")
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == first:
            return member(node, rest)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.ImportFrom) and node.module and any(one.name == first for one in node.names):
            return find(sources, f"{node.module}:{path}")
    return None


def member(node: ast.AST, path: list[str]) -> ast.AST | None:
    """What ``path`` leads to inside a class."""
    if not path:
        return node
    own = next((one for one in ast.iter_child_nodes(node) if getattr(one, "name", None) == path[0]), None)
    return own and member(own, path[1:])


def parse(sources: Path, module: str) -> ast.Module | None:
    """The syntax tree of a module."""
    stem = sources / module.replace(".", "/")
    file = next((one for one in (stem.with_suffix(".py"), stem / "__init__.py") if one.is_file()), None)
    return None if file is None else ast.parse(file.read_text(encoding="utf-8"))


def parameters_of(node: ast.FunctionDef) -> tuple[str, ...]:
    """The parameters in the order of `inspect.signature`."""
    given = node.args
    named = [*given.posonlyargs, *given.args, *([given.vararg] if given.vararg else []), *given.kwonlyargs]
    return tuple(one.arg for one in [*named, *([given.kwarg] if given.kwarg else [])])


def abstract(node: ast.ClassDef) -> Iterator[str]:
    """The abstract methods that a class defines."""
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and any("abstractmethod" in ast.unparse(d) for d in one.decorator_list):
            yield one.name


def attributes(sources: Path, symbol: str) -> set[str]:
    """What a class, or a base of it, defines, declares or assigns to itself."""
    node, module = find(sources, symbol), symbol.partition(":")[0]
    if not isinstance(node, ast.ClassDef):
        return set()
    found: set[str] = set()
    for one in ast.walk(node):
        if isinstance(one, ast.FunctionDef):
            found.add(one.name)
        elif isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            found.add(one.target.id)
        elif isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store):
            found.add(one.attr)
    for base in node.bases:
        found |= attributes(sources, f"{module}:{ast.unparse(base)}")
    return found
