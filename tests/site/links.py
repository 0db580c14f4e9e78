"""Where the pages of a built site lead, and what they make a browser load."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

# Attributes whose address is loaded without a click.
LOADED = {"src", "srcset", "data", "poster"}
LINKS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch"}
IN_STYLE = re.compile(r"""(?:url\(|@import\s+)\s*["']?((?:https?:)?//[^"')\s]+)""")


class Page(NamedTuple):
    """A page: its addresses, those of them that are loaded without a click, its anchors."""

    addresses: list[str]
    loaded: list[str]
    anchors: set[str]


class _Reader(HTMLParser):
    """Collects what a page names."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page([], [], set())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at an element."""
        values = {name: value or "" for name, value in attrs}
        self.page.anchors.update(values[name] for name in ("id", "name") if name in values)
        loaded = {name for name in LOADED if name in values}
        if tag == "link" and LINKS & set(values.get("rel", "").split()):
            loaded.add("href")
        self.page.loaded.extend(values[name] for name in sorted(loaded))
        self.page.addresses.extend(values[name] for name in sorted(loaded | {"href"} & set(values)))


def read(text: str) -> Page:
    """What a page of HTML names."""
    reader = _Reader()
    reader.feed(text)
    return reader.page


def mistakes_of_site(site: Path) -> Iterator[str]:
    """Yield a line for each address that leads nowhere or is loaded from elsewhere."""
    pages = {path: read(path.read_text()) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(site)
        # The page of an address that does not exist, of a server whose root is the site.
        root = site if name.name == "404.html" else path.parent
        yield from (f"{name}: loads {one}" for one in page.loaded if _elsewhere(one))
        for address in dict.fromkeys(page.addresses):
            if not _elsewhere(address) and (wrong := _wrong(address, path, root, pages)):
                yield f"{name}: {wrong}"
    for path in sorted(site.rglob("*.css")):
        for address in IN_STYLE.findall(path.read_text()):
            yield f"{path.relative_to(site)}: loads {address}"


def _elsewhere(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https")


def _wrong(address: str, path: Path, root: Path, pages: dict[Path, Page]) -> str:
    """What is wrong with an address of the site; empty if nothing is."""
    parts = urlsplit(address)
    if parts.scheme in ("data", "mailto"):
        return ""
    target = path if not parts.path else (root / unquote(parts.path).lstrip("/")).resolve()
    if target.is_dir():
        target = target / "index.html"
    if not target.exists():
        return f"{address} does not exist"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return f"{address} has no such heading"
    return ""
