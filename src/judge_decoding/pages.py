"""Render web pages; all values inserted into a template are escaped."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def templates(package: str) -> Environment:
    """Return the templates in the folder ``templates`` of a package, and the shared ones."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("judge_decoding")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def file_page(package: str, name: str, **values: Any) -> str:  # noqa: ANN401  (what the template is given)
    """Render a self-contained page from the templates ``name.html`` and, if it exists, ``name.js``.

    Its content security policy allows only that script, whatever text gets into the page.
    """
    environment = templates(package)
    scripts = f"{name}.js" in environment.list_templates()
    script = environment.get_template(f"{name}.js").render() if scripts else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    source = Markup(f"'sha256-{digest}'" if scripts else "'none'")
    return environment.get_template(f"{name}.html").render(script=Markup(script), script_source=source, **values)
