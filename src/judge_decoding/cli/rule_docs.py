"""The built-in rules as their source describes them, read without importing them, which would load torch."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from judge_decoding.errors import JudgeDecodingError
from judge_decoding.io.files import read_text

_NEEDS = {"needs_draft_probs": "draft probabilities", "needs_draft_hidden": "draft hidden states"}


def built_in() -> list[dict[str, Any]]:
    """Describe the built-in rules as plain JSON values, in the order of the registry."""
    spec = find_spec("judge_decoding.rules")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    known = {node.name: node for path in sorted(folder.glob("*.py")) for node in _classes(_parsed(path))}
    return [described(known[name]) for name in _registered(_parsed(folder / "spelling.py"))]


def described(rule: ast.ClassDef) -> dict[str, Any]:
    """Describe a rule by its class."""
    values = dict(_assignments(rule))
    init = next((one for one in rule.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
    arguments = [] if init is None else init.args.args[1:]
    defaults = [] if init is None else [ast.literal_eval(value) for value in init.args.defaults]
    by_name = dict(zip([one.arg for one in arguments][len(arguments) - len(defaults) :], defaults, strict=True))
    own = [one for one in arguments if one.arg != "head"]
    return {
        "name": values["name"],
        **texts(ast.get_docstring(rule) or ""),
        "parameters": {one.arg: by_name.get(one.arg) for one in own},
        "required": [one.arg for one in own if one.arg not in by_name],
        "types": {one.arg: ast.unparse(one.annotation or ast.Name("str")).removesuffix(" | None") for one in own},
        "strict": values.get("STRICT"),
        "lossless": values.get("lossless", False),
        "needs": [
            *(["judge head"] if len(own) < len(arguments) else []),
            *(what for name, what in _NEEDS.items() if values.get(name)),
        ],
    }


def texts(docstring: str) -> dict[str, str]:
    """The first line of a rule's docstring, and all of it but its errors, in plain text."""
    text = re.sub(r"\n*(?:Raises|Args|Attributes):\n.*", "", inspect.cleandoc(docstring), flags=re.DOTALL)
    plain = text.replace("``", "`")
    return {"summary": plain.partition("\n")[0], "text": plain}


def _parsed(path: Path) -> ast.Module:
    return ast.parse(read_text(path, "the rules"))


def _classes(module: ast.Module) -> Iterator[ast.ClassDef]:
    return (node for node in module.body if isinstance(node, ast.ClassDef))


def _assignments(rule: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    """Yield the constants of a class by name."""
    for node in rule.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Name):
            yield target.id, ast.literal_eval(node.value)


def _registered(module: ast.Module) -> list[str]:
    """Return the names of the classes in the registry's table, in its order."""
    for node in module.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "_BUILT_IN" and node.value is not None:
            (names,) = (one for one in ast.walk(node.value) if isinstance(one, ast.Tuple))
            return [one.id for one in names.elts if isinstance(one, ast.Name)]
    raise JudgeDecodingError("This copy of the package has no table of rules; install it again.")
