"""Web pages are made here; whatever is put into a template is escaped."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def templates(package: str) -> Environment:
    """The templates of a package, in its folder ``templates``, and those that all packages share."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("judge_decoding")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def file_page(package: str, name: str, **values: Any) -> str:  # noqa: ANN401  (what the template is given)
    """A page that is a file of its own, from the templates ``name.html`` and, if there is one, ``name.js``.

    Its policy lets that script run and no other, whatever text gets into the page.
    """
    environment = templates(package)
    scripts = f"{name}.js" in environment.list_templates()
    script = environment.get_template(f"{name}.js").render() if scripts else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    source = Markup(f"'sha256-{digest}'" if scripts else "'none'")
    return environment.get_template(f"{name}.html").render(script=Markup(script), script_source=source, **values)
