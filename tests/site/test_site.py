"""The checks of `make docs`; with FAKESYS_LONG=1 the site itself, in a browser, from a folder."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.long import LONG
from tests.site.blocks import blocks, commands, mistakes
from tests.site.links import mistakes_of_site
from tests.test_prose import DOCS, PAGES, REPOSITORY


@pytest.mark.parametrize("page", [*PAGES, DOCS / "abi.md"], ids=lambda page: page.name)
def test_blocks_of_code_are_what_they_say(page: Path) -> None:
    assert mistakes(page.read_text()) == []


@pytest.mark.parametrize(
    ("page", "wrong"),
    [
        ("```sh\necho $(\n```\n", "line 1: bash: line"),
        ("text\n```\nx\n```\n", "line 2: a block of code in ''"),
        ("```python\ndef f(:\n```\n", "line 1: no Python"),
        ("```toml\na = \n```\n", "line 1: no TOML"),
        ("```json\n{}\n{,}\n```\n", "line 1: no JSON"),
        ("```console\noutput\n```\n", "line 1: no command"),
        ("```console\n$ if true\noutput\n```\n", "line 1: bash: line"),
        ('```c\n"%d", (REC->x\n```\n', "line 1: no print format"),
        ("```sh\necho\n", "line 1: a block of code without an end"),
    ],
)
def test_a_wrong_block_is_found(page: str, wrong: str) -> None:
    [line] = mistakes(page)
    assert line.startswith(wrong)


def test_commands_of_a_session_are_told_from_what_they_print() -> None:
    session = "$ echo 'a\nb' | \\\n> cat\na ( b\n# id\nuid=0\n"
    assert list(commands(session)) == ["echo 'a\nb' | \\\ncat", "id"]
    [block] = blocks(f"```console\n{session}```\n")
    assert (block.language, block.text) == ("console", session)


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#there"></a><a href="#top"></a>'
        '<a href="b.html#gone"></a><a href="c.html"></a><a href="https://example.org/"></a>'
        '<img src="missing.png"><img src="//cdn.example/x.png">'
        '<link rel="stylesheet" href="https://fonts.example/css"><link rel="next" href="b.html">'
    )
    (tmp_path / "b.html").write_text('<p id="there">')
    (tmp_path / "404.html").write_text('<a href="/b.html"></a><a href="/d.html"></a>')
    (tmp_path / "x.css").write_text("a{background:url('https://cdn.example/y.png')}")
    assert list(mistakes_of_site(tmp_path)) == [
        "404.html: /d.html does not exist",
        "a.html: loads //cdn.example/x.png",
        "a.html: loads https://fonts.example/css",
        "a.html: b.html#gone has no such heading",
        "a.html: c.html does not exist",
        "a.html: missing.png does not exist",
        "x.css: loads https://cdn.example/y.png",
    ]


def test_the_wheel_carries_the_texts_and_the_source_what_builds_the_site() -> None:
    build = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["packages"] == ["fakesys"]
    assert DOCS.parent == REPOSITORY / "fakesys"
    assert {".mkdocs.yml", "tests", "Makefile"} <= set(build["targets"]["sdist"]["include"])


@pytest.mark.skipif(not LONG, reason="builds the whole site; FAKESYS_LONG=1")
def test_the_site_is_searched_from_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the extra fakesys[docs] is not installed")
    pytest.importorskip("selenium", reason="selenium is not installed")
    from tests.tools.kept import Unavailable
    from tests.view.browser import browser, evaluate, logged, wait_for

    site = tmp_path / "site"
    words = ["build", "--strict", "--quiet", "-f", ".mkdocs.yml", "-d", str(site)]
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hits = "document.querySelectorAll('.md-search-result__item a[href*=\"abi.html\"]').length"
    elsewhere = "performance.getEntriesByType('resource').filter(e => !e.name.startsWith('file:'))"
    try:
        with browser() as driver:
            driver.get(f"file://{site}/index.html")
            driver.find_element("css selector", "input.md-search__input").send_keys("checkstopped")
            wait_for(driver, f"{hits} > 0")
            assert evaluate(driver, f"{elsewhere}.length") == 0
            assert logged(driver) == []
    except Unavailable as error:
        pytest.skip(str(error))
