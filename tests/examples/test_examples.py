"""The shipped example test-suites run, and the guide quotes them as they are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fakesys
from tests.mounts import COMMAND

DOCS = Path(fakesys.__file__).parent / "docs"
EXAMPLES = DOCS / "examples"

needs_fuse = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="/dev/fuse is not usable here"
)


def run(*command: str, folder: Path, **environment: str) -> str:
    """What a command prints, which must succeed."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "FAKESYS": " ".join(COMMAND), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The examples as a user would copy them: outside this project and its settings."""
    copied = tmp_path / "examples"
    shutil.copytree(EXAMPLES, copied, ignore=shutil.ignore_patterns("__pycache__"))
    return copied


@needs_fuse
def test_the_suite_for_pytest(folder: Path) -> None:
    words = ("-m", "pytest", "-q", "--strict-markers", "-W", "error", "-n", "2")
    output = run(sys.executable, *words, folder=folder)
    assert re.search(r"^9 passed in", output, re.MULTILINE), output


@needs_fuse
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_the_suite_for_a_plain_shell(folder: Path, shell: str) -> None:
    words = shell.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    output = run(*words, "test-free-adapter.sh", folder=folder)
    lines = output.splitlines()
    assert len(lines) in (6, 7), output
    assert all(line.startswith("ok ") for line in lines), output


@needs_fuse
def test_a_broken_script_fails_in_both_suites(folder: Path) -> None:
    script = folder / "free-adapter.sh"
    script.write_text(script.read_text().replace('put "$domain"', 'true || put "$domain"'))
    for command in (
        [sys.executable, "-m", "pytest", "-q", "-x", "-k", "guest_gets"],
        ["sh", "test-free-adapter.sh"],
    ):
        with pytest.raises(AssertionError, match=r"1 failed|not ok"):
            run(*command, folder=folder)


def quoted() -> Iterator[tuple[str, str]]:
    """Language and lines of each block of the guide that shows a piece of an example."""
    text = (DOCS / "testing.md").read_text()
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if "free_adapter(" in block or "$FAKESYS" in block:
            yield language, block


def test_the_guide_quotes_the_examples_word_for_word() -> None:
    sources = {
        "python": (EXAMPLES / "test_free_adapter.py").read_text(),
        "sh": (EXAMPLES / "test-free-adapter.sh").read_text(),
    }
    blocks = list(quoted())
    assert len(blocks) == 4
    for language, block in blocks:
        assert block in sources[language], block
