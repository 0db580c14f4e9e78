"""What the control files read and change: the machine as a whole. Knows no text and no path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.journal import LineLog, UeventLog
from fakesys.core.kernel import Kernel
from fakesys.subsystems.control.faults import Faults
from fakesys.subsystems.control.recording import Recorded, Recordings


class WholeMachine(Recorded, Protocol):
    """What the machine itself must do for its control files."""

    @property
    def kernel(self) -> Kernel:
        """Clock, bus and chance of the machine as it is now."""

    @property
    def profile_name(self) -> str:
        """The chosen profile."""

    @property
    def profile_names(self) -> Sequence[str]:
        """What `set_profile` takes."""

    def set_profile(self, name: str) -> None:
        """Choose another one. Raises EINVAL, EBUSY while an mdev, guest or VM exists."""

    def set_lockdown(self, locked: bool) -> None:
        """debugfs as on a locked-down kernel, or not."""

    def faults_changed(self) -> None:
        """Faults were armed or cleared."""

    def reset(self) -> None:
        """Everything as at mount time."""

    def state(self) -> Mapping[str, Any]:
        """The whole machine as a JSON object."""

    def recordings_changed(self) -> None:
        """Somebody began to read what is written, or nobody does any more."""

    def save(self) -> bytes:
        """The whole machine as a file."""

    def load(self, data: bytes) -> None:
        """Become the machine of a file. Raises EINVAL, and stays as it was."""


class Refusal(Struct, frozen=True):
    """The last refused write of the mount."""

    time_ns: int
    path: str
    error: KernelError


@dataclass(eq=False)
class Control:
    """The machine's own record: refusals, internal errors, journals."""

    machine: WholeMachine
    uevents: UeventLog = field(default_factory=UeventLog)
    log: LineLog = field(default_factory=LineLog)
    last_error: Refusal | None = None
    bugs: list[str] = field(default_factory=list)
    # How many requests a mount of this machine has served; a transport puts its count here.
    requests_served: Callable[[], int] = lambda: 0
    faults: Faults = field(default_factory=Faults)
    lockdown: bool = False
    seed: int = 1
    recordings: Recordings = field(init=False)

    def __post_init__(self) -> None:
        self.recordings = Recordings(self.machine, self.machine.recordings_changed)

    def clear(self) -> None:
        """Forget refusals and faults; what went wrong inside stays on record."""
        self.last_error = None
        self.faults = Faults()

    def set_seed(self, seed: int) -> None:
        """Start the random generator anew."""
        self.seed = seed
        self.machine.kernel.random.seed(seed)

    def record(self, path: str, error: KernelError | None) -> None:
        """Remember the result of a write; a good one clears the last refusal."""
        if error is None:
            self.last_error = None
            return
        self.last_error = Refusal(self.machine.kernel.clock.now_ns, path, error)
