"""What the control files read and change: the machine as a whole. Knows no text and no path."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.core.journal import LineLog, UeventLog
from fakesys.core.kernel import Kernel
from fakesys.subsystems.control.faults import Faults
from fakesys.subsystems.control.recording import Recorded, Recordings

# Called with operation, path and inode number before a call; refuses it, or makes it wait.
Strike = Callable[[str, str, int], None]


class Profiles(Protocol):
    """The kernels that the machine can behave like."""

    @property
    def profile_name(self) -> str:
        """The chosen profile."""

    @property
    def profile_names(self) -> Sequence[str]:
        """What `set_profile` takes."""

    @property
    def boot(self) -> str:
        """The command line with which the kernel was booted."""

    def set_profile(self, name: str) -> None:
        """Choose another one. Raises EINVAL, EBUSY while an mdev, guest or VM exists."""


class Calls(Protocol):
    """What the system calls on the mount pass through."""

    def lock_down(self, locked: bool) -> None:
        """Let debugfs answer as on a locked-down kernel, or as usual."""

    def gate(self, strike: Strike | None) -> None:
        """Call `strike` before each read and write; None: call nothing."""

    def record(self, recorder: Recordings | None) -> None:
        """Tell `recorder` of each call that may change the machine; None: tell nothing."""


class WholeMachine(Protocol):
    """What the machine itself must offer to its control files."""

    @property
    def kernel(self) -> Kernel:
        """Clock, bus and chance of the machine as it is now."""

    @property
    def kernels(self) -> Profiles:
        """The choice of the kernel that is imitated."""

    @property
    def calls(self) -> Calls:
        """What system calls pass through."""

    @property
    def recorded(self) -> Recorded:
        """The machine as recordings see it."""

    def reset(self) -> None:
        """Make everything as at mount time."""

    def state(self) -> Mapping[str, Any]:
        """Return the whole machine as plain data."""

    def save(self) -> bytes:
        """Return the whole machine as a file."""

    def load(self, data: bytes) -> None:
        """Become the machine of a file. Raises EINVAL, and stays as it was."""


class Refusal(Struct, frozen=True):
    """The last refused write of the mount."""

    time_ns: int
    path: str
    error: KernelError


class Control:
    """What belongs to the machine as a whole: refusals, internal errors, journals, faults.

    `bugs` and the journals live through a reset. `requests_served`: how many requests a mount of
    this machine has served; a transport puts its count here.
    """

    def __init__(self, machine: WholeMachine) -> None:
        self.machine = machine
        self.uevents, self.log = UeventLog(), LineLog()
        self.last_error: Refusal | None = None
        self.bugs: list[str] = []
        self.requests_served: Callable[[], int] = lambda: 0
        self.faults = Faults()
        self.lockdown = False
        self.seed = 1
        self.recordings = Recordings(machine.recorded, self._recordings_changed)

    def begin(self, kernel: Kernel, seed: int) -> None:
        """Keep journals of a new machine, whose random generator has this seed."""
        self.seed = seed
        self.uevents.listen(kernel.bus)
        self.log.listen(kernel.bus, lambda: kernel.clock.now_ns)

    def clear(self) -> None:
        """Forget the last refusal and all faults; internal errors are kept."""
        self.last_error = None
        self.set_faults(Faults())

    def set_seed(self, seed: int) -> None:
        """Start the random generator again with this seed."""
        self.seed = seed
        self.machine.kernel.random.seed(seed)

    def set_lockdown(self, locked: bool) -> None:
        """Let debugfs answer as on a locked-down kernel, or as usual."""
        self.lockdown = locked
        self.machine.calls.lock_down(locked)

    def set_faults(self, faults: Faults) -> None:
        """Replace all faults; without an armed one, no call pays for them."""
        self.faults = faults
        self.machine.calls.gate(self._strike if faults.armed else None)

    def faults_changed(self) -> None:
        """Follow a change of the faults. Call it after every one."""
        self.set_faults(self.faults)

    def note_success(self) -> None:
        """Forget the last refusal: a write has succeeded since."""
        self.last_error = None

    def note_refusal(self, path: str, error: KernelError) -> None:
        """Keep what was refused at a path as the last refusal."""
        self.last_error = Refusal(self.machine.kernel.clock.now_ns, path, error)

    def state(self) -> Mapping[str, Any]:
        """Return faults, lockdown and seed as plain data."""
        return {"faults": self.faults.state(), "lockdown": self.lockdown, "seed": self.seed}

    def _strike(self, operation: str, path: str, ino: int) -> None:
        kernel = self.machine.kernel
        self.faults.strike(operation, path, (kernel.caller.pid, ino), kernel.clock)

    def _recordings_changed(self) -> None:
        self.machine.calls.record(self.recordings if self.recordings.all else None)
