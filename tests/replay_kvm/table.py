"""A table of all modes: how many recordings are equal, and where the others differ first.

`python -m tests.replay_kvm.table [--full] [MODE...]`
"""

from __future__ import annotations

import sys
import traceback

from tests.replay_kvm.hosts import MODES, host, scenarios
from tests.replay_kvm.normal import Normal
from tests.replay_kvm.recordings import ORACLE, load
from tests.replay_kvm.replay import Replay, Verdict


def replayed(mode: str, name: str, *, full: bool = False) -> Verdict:
    """Replay one recording of a mode."""
    with host(mode) as (files, events):
        normal = Normal(hosts=True, full=full)
        return Replay(files, events, load(ORACLE).aliases, normal).run(scenarios(mode)[name])


def main(arguments: list[str]) -> None:
    """Print the table."""
    full = "--full" in arguments
    for mode in [word for word in arguments if word in MODES] or MODES:
        names = [word for word in arguments if word not in MODES and word != "--full"]
        equal, lines = 0, []
        for name in names or scenarios(mode):
            try:
                verdict = replayed(mode, name, full=full)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                lines.append(f"  {name}: {error!r} {where.filename}:{where.lineno}")
                continue
            equal += verdict.equal
            if not verdict.equal:
                lines.append(f"  {len(verdict.differences)} {verdict.differences[0]}")
        print(f"{mode}: {equal} of {len(names or scenarios(mode))} equal")
        print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
