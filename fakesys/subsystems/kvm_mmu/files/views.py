"""The views of a VM's memory below `fakesys/kvm/vms/VM`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import EBADF, ENOENT, ESPIPE
from select import POLLIN, POLLRDNORM
from typing import Any

from fakesys.core.errors import KernelError, Waiters
from fakesys.subsystems.kvm.vm import Vm
from fakesys.subsystems.kvm_mmu.extension import MmuExtension
from fakesys.subsystems.kvm_mmu.shadow.pages import UNSYNC
from fakesys.subsystems.kvm_mmu.shadow.role import DIRECT, INVALID, level_of
from fakesys.subsystems.kvm_mmu.slots.memslots import LOG_DIRTY_PAGES, READONLY, Memslot
from fakesys.subsystems.kvm_mmu.vm.dirty_log import DirtyLog
from fakesys.subsystems.kvm_mmu.vm.memory import VmMemory
from fakesys.tree.attr import Attr, Dir, Files, Handle, Layout, Row
from fakesys.tree.kinds import CONTROL

# Lines of shadow pages that are made at a time.
_PIECE = 2048


def memslots_text(memory: VmMemory) -> str:
    """Return `id gpa size flags mem+off`, one slot a line; ids above 65535 are those of SMM."""
    lines = []
    for as_id, space in enumerate(memory.spaces.memslots):
        for slot in space.in_order:
            number = as_id << 16 | slot.id
            size = slot.npages << 12
            lines.append(
                f"{number} {slot.base_gfn << 12:#x} {size:#x} {_flags(slot)} {_backing(slot)}\n"
            )
    return "".join(lines)


def _flags(slot: Memslot) -> str:
    names = []
    if slot.flags & LOG_DIRTY_PAGES:
        names.append("log_dirty")
    if slot.flags & READONLY:
        names.append("readonly")
    if slot.invalid:
        names.append("invalid")
    return ",".join(names) or "-"


def _backing(slot: Memslot) -> str:
    if slot.memory is None:
        return f"{slot.userspace_addr:#x}"
    return f"{slot.memory.name}+{slot.userspace_addr - slot.memory.hva:#x}"


def mmu_text(memory: VmMemory) -> str:
    """Return the numbers of the whole VM, one `key value` a line."""
    pages = memory.arch.pages
    rows = {
        "valid_gen": pages.valid_gen,
        "n_used": pages.used,
        "n_max": memory.roots.n_max,
        "n_requested": memory.roots.n_requested,
        "generation": memory.slots.generation,
        "spte_mmio_gen": memory.mmio.generation,
        "zapped_obsolete": len(memory.arch.zapped_obsolete),
        "indirect_shadow_pages": memory.links.write_tracking.indirect_shadow_pages,
    }
    return "".join(f"{key} {value}\n" for key, value in rows.items())


def shadow_page_lines(memory: VmMemory) -> Iterator[str]:
    """Return `gfn level role gen root_count flags`, the newest page first, as the list has them.

    The lines are those of this moment.
    """
    pages = memory.arch.pages
    return _page_lines(pages.newest_first(), pages.valid_gen)


def _page_lines(pages: Iterator[tuple[int, int, int, int, int]], valid_gen: int) -> Iterator[str]:
    for gfn, role, gen, root_count, page_flags in pages:
        invalid = role & INVALID
        names = [
            name
            for name, holds in (
                ("direct", role & DIRECT),
                ("invalid", invalid),
                ("unsync", page_flags & UNSYNC),
                ("obsolete", gen != valid_gen and not invalid),
            )
            if holds
        ]
        flags = ",".join(names) or "-"
        yield f"{gfn:x} {level_of(role)} {role:#x} {gen} {root_count} {flags}\n"


class LazyText:
    """An open file whose text is made piece by piece, while it is read from front to back.

    Text that was read is dropped; a read at offset 0 starts again.
    """

    def __init__(self, make: Callable[[], Iterator[str]]) -> None:
        self._make = make
        self._lines: Iterator[str] = iter(())
        self._start = 0
        self._text = bytearray()

    def read(self, offset: int, size: int, *, nonblock: bool) -> bytes:
        """Return the next bytes, often fewer than `size`.

        Raises ESPIPE for an offset before what was read last.
        """
        if offset == 0:
            self._restart()
        if offset < self._start:
            raise KernelError(ESPIPE, "read it from the beginning")
        while offset >= self._start + len(self._text) and self._more():
            self._forget(offset)
        at = offset - self._start
        return bytes(self._text[at : at + size])

    def write(self, data: bytes, offset: int, *, nonblock: bool) -> int:
        """Refuse to write. Raises EBADF."""
        raise KernelError(EBADF, "a view")

    def poll(self) -> int:
        """Return that the file is readable."""
        return POLLIN | POLLRDNORM

    def waiters(self) -> Waiters | None:
        """Return None: nothing is ever waited for."""
        return None

    def release(self) -> None:
        """Do nothing: the file holds no resource."""

    def _restart(self) -> None:
        self._lines = self._make()
        self._start = 0
        self._text = bytearray()

    def _more(self) -> bool:
        piece = [line for _, line in zip(range(_PIECE), self._lines, strict=False)]
        self._text += "".join(piece).encode("ascii")
        return bool(piece)

    def _forget(self, offset: int) -> None:
        if offset - self._start > 1 << 20:
            del self._text[: offset - self._start]
            self._start = offset


def views(mmu: MmuExtension) -> tuple[Row, ...]:
    """Return the rows of a VM's directory."""

    def of(vm: Vm) -> VmMemory:
        return mmu.memories[vm]

    def open_pages(vm: Vm, _flags: int) -> Handle:
        memory = of(vm)
        return LazyText(lambda: shadow_page_lines(memory))

    return (
        Attr(
            name="memslots",
            mode=0o444,
            doc="`id gpa size flags mem+off`, one slot a line, by gpa.",
            show=lambda vm: memslots_text(of(vm)),
        ),
        Attr(
            name="mmu",
            mode=0o444,
            doc="Generations and budget of shadow pages, one `key value` a line.",
            show=lambda vm: mmu_text(of(vm)),
        ),
        Attr(
            name="shadow_pages",
            mode=0o444,
            doc="`gfn level role gen root_count flags`, one shadow page a line, newest first.",
            open=open_pages,
        ),
        Attr(
            name="race",
            mode=0o444,
            doc="How the last race of the VM ended; empty before the first.",
            show=lambda vm: _race_text(mmu, vm),
        ),
        Dir("dirty", _dirty_layout(mmu)),
    )


def _race_text(mmu: MmuExtension, vm: Vm) -> str:
    result = mmu.races.get(vm)
    return "" if result is None else result.words().replace(" ", "\n").replace("=", " ") + "\n"


def _dirty_layout(mmu: MmuExtension) -> Layout[Any]:
    def names(vm: Vm) -> list[str]:
        return [
            str(slot.as_id << 16 | slot.id)
            for space in mmu.memories[vm].spaces.memslots
            for slot in space.in_order
            if slot.dirty is not None
        ]

    def get(vm: Vm, name: str) -> Memslot | None:
        if name not in names(vm):
            return None
        return mmu.memories[vm].spaces.slot(int(name))

    return Layout(
        (
            Files(
                names=names,
                get=get,
                attr=Attr(
                    name="SLOT",
                    mode=0o444,
                    doc="Dirty pages of a logged slot, ranges of offsets; reading clears none.",
                    show=_dirty_text,
                    errors={ENOENT: "the slot is not logged"},
                ),
            ),
        ),
        kind=CONTROL,
    )


def _dirty_text(slot: Memslot) -> str:
    if slot.dirty is None:
        # The file was opened while there was a log.
        raise KernelError(ENOENT, f"slot {slot.id} is no longer logged")
    words = (str(low) if low == high else f"{low}-{high}" for low, high in DirtyLog.ranges(slot))
    return "".join(f"{word}\n" for word in words)
