"""What mkdocs cannot do by itself: pages link to files of the repository, which lie outside ``docs/``.

In the repository those links are relative (``../benchmarks/results/reference.md``), so that they work there. The site
contains the linked files, Markdown as pages and all others as they are, and the links point to these copies.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parents[1]
# Pages of the repository's root that have a place in the menu.
ROOT_PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}
# What a browser would fetch from elsewhere by itself.
FETCHED = re.compile(r"""<(?:script|img|iframe|link rel="?stylesheet"?)\b[^>]*?(?:src|href)=["']?https?:[^"'>\s]+""")
# The target of a link or picture, without its fragment: neither an address with a scheme nor a mere fragment.
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)((?:#[^)\s]*)?\))")


def resolve(page: str, link: str) -> str:
    """The path in the repository that ``link`` on the repository's file ``page`` means."""
    return os.path.normpath(PurePosixPath(page).parent / link)


def place(path: str) -> str:
    """Where the site has the repository's file ``path``."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path == "README.md":
        return "index.md"
    return ROOT_PAGES.get(path, f"repository/{path}")


def linked(pages: list[str]) -> set[str]:
    """All files outside ``docs/`` that these pages of the repository lead to, link by link."""
    found: set[str] = set()
    waiting = list(pages)
    while waiting:
        page = waiting.pop()
        if not page.endswith(".md"):
            continue
        targets = {resolve(page, match[2]) for match in LINK.finditer((ROOT / page).read_text(encoding="utf-8"))}
        new = {path for path in targets if not path.startswith("docs/") and (ROOT / path).is_file()} - found
        new -= {"README.md", *ROOT_PAGES}
        found |= new
        waiting += new
    return found


def on_files(files: Any, config: Any) -> Any:  # noqa: ANN401  (mkdocs is not installed where types are checked)
    """Add the pages of the repository's root and every file that a page links to."""
    from mkdocs.structure.files import File  # noqa: PLC0415  (mkdocs is there only when it calls this)

    pages = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    for path in [*ROOT_PAGES, *sorted(linked([*pages, *ROOT_PAGES]))]:
        files.append(File.generated(config, place(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:  # noqa: ANN401
    """Make the links that lead out of ``docs/`` lead to the copies in the site."""
    here = page.file.src_uri
    source = Path(page.file.abs_src_path).relative_to(ROOT).as_posix()

    def moved(match: re.Match[str]) -> str:
        there = place(resolve(source, match[2]))
        return match[1] + os.path.relpath(there, PurePosixPath(here).parent) + match[3]

    return LINK.sub(moved, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:  # noqa: ANN401
    """Refuse a page that would make a reader's browser fetch anything from elsewhere."""
    if found := FETCHED.search(output):
        raise ValueError(f"{page.file.src_uri} fetches from elsewhere: {found[0]}")
    return output
