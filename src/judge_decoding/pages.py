"""Web pages are made here; whatever is put into a template is escaped."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def templates(package: str) -> Environment:
    """The templates of a package, in its folder ``templates``, and those that all packages share."""
    return Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("judge_decoding")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
