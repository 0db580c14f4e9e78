"""What mkdocs asks while it builds the site: the first page, and a look at what was built.

Not imported as a module of this package, so that mkdocs finds what is beside it by path.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.site.blocks import mistakes  # noqa: E402
from tests.site.links import mistakes_of_site  # noqa: E402

LOG = logging.getLogger("mkdocs.hooks.fakesys")


def on_config(config: Any) -> Any:
    """List texts that the configuration does not name as further guides, by their own titles."""
    named = set(re.findall(r"[\w-]+\.md", str(config.nav)))
    guides = next(section["Guides"] for section in config.nav if "Guides" in section)
    guides += sorted(path.name for path in Path(config.docs_dir).glob("*.md"))
    guides[:] = [page for page in guides if not isinstance(page, str) or page not in named]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the README as the first page; its links lead from the folder of the texts."""
    text = (REPOSITORY / "README.md").read_text()
    files.append(File.generated(config, "index.md", content=as_page(text)))
    worker = Path(__file__).with_name("iframe-worker.js").read_text()
    files.append(File.generated(config, "javascripts/iframe-worker.js", content=worker))
    return files


def as_page(readme: str) -> str:
    """The README with links from the folder of the texts."""
    return re.sub(r"(\]\(|src=\")fakesys/docs/", r"\1", readme)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Warn of blocks that are not what they say, which ends a strict build."""
    for wrong in mistakes(markdown):
        LOG.warning("%s: %s", page.file.src_uri, wrong)
    return markdown


def on_post_build(config: Any) -> None:
    """Warn of links of the site that lead nowhere, and of what it loads from elsewhere."""
    for wrong in mistakes_of_site(Path(config.site_dir)):
        LOG.warning(wrong)
