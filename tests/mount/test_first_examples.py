"""The first examples of `fakesys doc start`, typed into one shell: `# -> ...` is what it prints."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.mounts import mounted

PAGE = Path(__file__).parents[2] / "fakesys/docs/start.md"
END = "--- end of line"


def examples() -> list[str]:
    """The lines of all shell examples that are about a mount."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def outputs(lines: list[str], folder: Path) -> list[str]:
    """What each line prints, in one bash, in a folder with a mount at `mountpoint`."""
    script = "".join(f"{line}\necho '{END}'\n" for line in lines)
    done = subprocess.run(
        ["bash"],
        input=script,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        timeout=60,
        check=True,
    )
    return done.stdout.split(f"{END}\n")[: len(lines)]


def prints(output: str, expected: str) -> bool:
    """Do all words stand in the output, in this order? Three dots stand for anything."""
    words = (re.escape(word) for word in expected.split() if word != "...")
    return re.search(".*?".join(words), output, re.DOTALL) is not None


def test_the_examples_print_what_the_page_says(tmp_path: Path) -> None:
    lines = examples()
    with mounted(tmp_path, scenario="default") as mount:
        (tmp_path / "mountpoint").symlink_to(mount.root)
        found = outputs(lines, tmp_path)
    promised = 0
    for line, output in zip(lines, found, strict=True):
        command, arrow, expected = line.partition("# -> ")
        promised += bool(arrow)
        if arrow:
            assert prints(output, expected), f"{command}printed {output!r}"
        elif not command.startswith("ls"):
            assert output == "", f"{command} printed {output!r}"
    assert promised > 15
