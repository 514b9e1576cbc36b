"""Run the notebooks of this folder and write their outputs, without Jupyter.

    python notebooks/execute.py notebooks/*.ipynb

Each cell runs in order in one namespace. What it prints and the value of its last expression become its outputs, as in
Jupyter.
"""

from __future__ import annotations

import ast
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

_FORMS = {"text/html": "_repr_html_", "image/svg+xml": "_repr_svg_"}


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """Run all code cells, replace their outputs in ``notebook``, and return the namespace they ran in."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, start=1):
        cell["outputs"] = _outputs("".join(cell["source"]), namespace, number)
        cell["execution_count"] = number
    return namespace


def _outputs(source: str, namespace: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """Run a cell; return its outputs in the format of notebooks."""
    name = f"cell {number}"
    body = ast.parse(source, name).body
    shown = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    value = None
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), name, "exec"), namespace)
        if isinstance(shown, ast.Expr):
            value = eval(compile(ast.Expression(shown.value), name, "eval"), namespace)
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": text.splitlines(keepends=True)})
    if value is not None:
        forms = {form: getattr(value, method)() for form, method in _FORMS.items() if hasattr(value, method)}
        data = {form: text.splitlines(keepends=True) for form, text in {**forms, "text/plain": repr(value)}.items()}
        outputs.append({"output_type": "execute_result", "execution_count": number, "data": data, "metadata": {}})
    return outputs


def main() -> None:
    """Run the notebooks that are named on the command line."""
    for path in map(Path, sys.argv[1:]):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        run(notebook)
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
