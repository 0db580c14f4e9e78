"""A machine taken back to an earlier state, and the digest of a state.

A copy holds what a snapshot holds of the models and settings. The AP part is restored in place; a
change of anything else, and any state with a VM, makes all models anew, which takes some thirty
times as long (see `fakesys doc decision-explore`).
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from random import Random
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from fakesys.core.clock import SavedClock, SavedTimer
from fakesys.core.kernel import SavedKernel, SavedRandom
from fakesys.core.saved import mask_of, mask_text
from fakesys.core.tracepoint import Tracepoint
from fakesys.machine.machine import Machine
from fakesys.machine.saved_models import SavedModels, restored_models, save_choices, save_rest
from fakesys.subsystems.ap_control import saved as ap
from fakesys.subsystems.control import saved as settings
from fakesys.subsystems.device_nodes import saved as nodes

_encode = msgspec.msgpack.Encoder().encode
# Of parts that many states share, so many are kept to be shared by further ones.
SHARED = 1000
_NO_TIMER = SavedTimer(due_ns=0, sequence=0)
_decode_ap = msgspec.msgpack.Decoder(ap.SavedAp).decode
# Writes to files below these change the AP part, kernels and modules only, while there is no VM
# and nothing is traced.
_OF_AP = (
    "sys/bus/ap/",
    "sys/devices/ap/",
    "sys/devices/vfio_ap/",
    "sys/bus/mdev/",
    "sys/kernel/debug/fakesys/ap/",
)


T = TypeVar("T")


class Rest(NamedTuple):
    """All but time, chance and the AP part. `choices`: what `save_choices` tells.

    `digest`: of what the next steps depend on.
    """

    text: bytes
    choices: bytes
    digest: bytes


class Copy(Struct, frozen=True):
    """A state. `random`, `rest`, `control`: shared by many; `ap`: packed as msgpack or not."""

    clock: SavedClock
    random: bytes
    rest: Rest
    control: bytes
    ap: ap.SavedAp | bytes

    @property
    def packed_ap(self) -> bytes:
        """The AP part, packed."""
        return self.ap if isinstance(self.ap, bytes) else _encode(self.ap)

    @property
    def packed(self) -> Copy:
        """The same in less memory."""
        return replace(self, ap=self.packed_ap)


class Draws(Random):
    """A generator that notes whether it was used since `used` was last set to False.

    Its state has 625 numbers, and most steps take none.
    """

    used: bool

    def random(self) -> float:
        """Return the next number."""
        self.used = True
        return super().random()

    def getrandbits(self, k: int, /) -> int:
        """Return the next bits."""
        self.used = True
        return super().getrandbits(k)

    def seed(self, *seed: Any) -> None:
        """Begin with a seed."""
        self.used = True
        super().seed(*seed)

    def setstate(self, state: Any) -> None:
        """Go on from a state."""
        self.used = True
        super().setstate(state)


class Copies:
    """Copies of one machine's states. `loads`: how often all models were made anew."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.loads = 0
        # Of the state that was taken or restored last.
        self._random = b""
        self._control = b""
        self._rest = Rest(b"", b"", b"")
        # One object for equal values, so that a comparison is one of references.
        self._shared: dict[bytes, bytes] = {}
        self._rests: dict[bytes, Rest] = {}

    def take(self, path: str, seen: tuple[str, ...]) -> tuple[Copy, bytes]:
        """Return a copy of the present state, and its digest with the texts `seen`.

        `path`: the file that was written since the last copy was taken or restored, else empty.
        """
        models = self.machine.subsystems
        for feature in models.ap.system.debug.all.values():
            # Messages are no part of a state: they would only be copied on and on.
            feature.entries.clear()
        self._rest = self._rest_after(path)
        self._random = self._present_random()
        self._control = self._present_control()
        clock, saved = models.kernel.clock.saved(), ap.save(models.ap.system)
        copy = Copy(clock, self._random, self._rest, self._control, saved)
        what = (clock.now_ns, clock.rate, _essence(saved), seen, self._rest.digest)
        digest = blake2b(_encode(what), digest_size=16)
        digest.update(self._control)
        digest.update(self._random)
        return copy, digest.digest()

    def restore(self, copy: Copy) -> None:
        """Take the machine back to a copy of one of its states."""
        models = self.machine.subsystems
        self.machine.fs.binder.drop_nodes()
        if copy.rest is self._rest and not models.kvm.kvm.vms and models.selftest is None:
            self._restore_ap(copy)
        else:
            self._load(copy)
        if copy.control is not self._control:
            saved = msgspec.msgpack.decode(copy.control, type=settings.SavedControl)
            settings.restore(saved, self.machine.control)
        self._rest, self._random, self._control = copy.rest, copy.random, copy.control

    def _rest_after(self, path: str) -> Rest:
        models = self.machine.subsystems
        choices = _encode(save_choices(models))
        if choices == self._rest.choices and path.startswith(_OF_AP) and self._is_quiet():
            return self._rest
        rest = save_rest(models)
        text = _encode(rest)
        found = self._rests.get(text)
        if found is None:
            # The result of the last command is told, not used.
            used = _encode({**rest, "kvm": replace(rest["kvm"], last="")})
            digest = blake2b(used, digest_size=16).digest()
            found = _kept(self._rests, text, Rest(text, choices, digest))
        return found

    def _is_quiet(self) -> bool:
        """Whether there is no VM and nothing is traced."""
        kernel = self.machine.kernel
        traced = any(issubclass(kind, Tracepoint) for kind in kernel.bus.wanted)
        return not (self.machine.subsystems.kvm.kvm.vms or traced)

    def _share(self, text: bytes) -> bytes:
        return _kept(self._shared, text, text)

    def _present_random(self) -> bytes:
        kernel = self.machine.kernel
        draws = kernel.random
        if not isinstance(draws, Draws):
            # The models that have it go on with the same generator.
            draws.__class__ = Draws
            assert isinstance(draws, Draws)
            draws.used = True
        if draws.used:
            draws.used = False
            return self._share(_encode(kernel.saved().random))
        return self._random

    def _present_control(self) -> bytes:
        saved = settings.save(self.machine.control)
        return self._share(_encode(replace(saved, last_error=None)))

    def _restore_ap(self, copy: Copy) -> None:
        models = self.machine.subsystems
        system, kernel = models.ap.system, models.kernel
        if copy.random is self._random:
            kernel.clock.restore(copy.clock)
        else:
            kernel.restore(self._kernel(copy))
        saved = _decode_ap(copy.ap) if isinstance(copy.ap, bytes) else copy.ap
        with kernel.bus.muted():
            ap.restore(saved, system)
            nodes.restore(saved.nodes, system.nodes, set(models.modules.loaded))

    def _kernel(self, copy: Copy) -> SavedKernel:
        chance = msgspec.msgpack.decode(copy.random, type=SavedRandom)
        return SavedKernel(clock=copy.clock, random=chance)

    def _load(self, copy: Copy) -> None:
        self.loads += 1
        machine = self.machine
        whole = msgspec.msgpack.decode(copy.rest.text, type=dict[str, msgspec.Raw])
        whole["kernel"] = msgspec.Raw(_encode(self._kernel(copy)))
        whole["ap"] = msgspec.Raw(copy.packed_ap)
        saved = msgspec.msgpack.decode(_encode(whole), type=SavedModels)
        processes = machine.subsystems.tracing.tracing.shared.processes
        machine.fs.forget_begun()
        machine.subsystems.kvm.kvm.forget_owners()
        models = restored_models(saved, machine.scenario, processes)
        machine.subsystems = models
        machine.control.begin(models.kernel, machine.control.seed)
        machine.fs.binder.listen(models.kernel.bus)
        machine.rebind()
        machine.fs.settle()


def _kept(values: dict[bytes, T], key: bytes, value: T) -> T:
    """Return the value that is kept under a key; only some of the newest are."""
    if len(values) >= SHARED and key not in values:
        del values[next(iter(values))]
    return values.setdefault(key, value)


def _essence(saved: ap.SavedAp) -> tuple[object, ...]:
    """Return what the next steps depend on: no numbers and messages that only count what was."""
    bus, hardware = saved.bus, saved.hardware
    timers: list[Any] = [bus.timer, bus.poll_timer]
    if bus.poll_timer is None or bus.poll_timer.due_ns != bus.timer.due_ns:
        # Which of two timers comes first matters only when both are due together.
        timers = [timer and timer.due_ns for timer in timers]
    return (
        replace(bus, scans=1, completions=0, timer=_NO_TIMER, poll_timer=None),
        timers,
        replace(hardware, resets=(), rapq=(), attempts=()),
        # Where a queue was reset, the hardware knows it after its card has gone.
        [(apid, _union(planes)) for apid, planes in hardware.resets],
        saved.mdev,
        saved.vfio_ap,
        saved.nodes,
        saved.hwrng_seed,
    )


def _union(planes: Iterable[str]) -> str:
    union = 0
    for plane in planes:
        union |= mask_of(plane)
    return mask_text(union)
