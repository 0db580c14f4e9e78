"""The host memory behind a guest: mappings in the process that owns the VM, and their content."""

from __future__ import annotations

from bisect import bisect_right
from errno import EEXIST, EINVAL, ENOENT, ENOMEM

from fakesys.core.errors import KernelError

PAGE = 4096
LARGE = 2 << 20
GIANT = 1 << 30
ZERO_PFN = 0x1
# TASK_SIZE_MAX of x86-64 with four levels.
USER_SPACE_END = (1 << 47) - PAGE
_FIRST_HVA = 0x5000_0000_0000
_FIRST_PFN = 0x100000
# Below all mappings of commands: what KVM maps for itself in the owner.
_PRIVATE_HVA = 0x4FFF_FFFF_F000
_PRIVATE_PFN = 0xFFFFF
BLOCK_PAGES = 512


class HostMemory:
    """One mapping of the owner. Pages are numbered from its start.

    `thp`: backed by 2 MiB pages, except in the blocks in `split`; otherwise those in `whole` are.
    `hugetlb`: size of the pages of hugetlbfs behind it, 0 for none. Masks of pages by block of 512:
    `gone`, which come back when they are faulted in; `zero`, where a read has put the zero page;
    `shared`, with a child that was forked, so that a write copies them; `read_only`, which the
    owner may not write; `unmapped`, which do not exist any more.
    """

    def __init__(
        self, name: str, size: int, *, thp: bool, hva: int, pfn: int, hugetlb: int = 0
    ) -> None:
        self.name = name
        self.size = size
        self.thp = thp
        self.hugetlb = hugetlb
        self.hva = hva
        self.pfn = pfn
        self.split: set[int] = set()
        self.whole: set[int] = set()
        self.gone: dict[int, int] = {}
        self.zero: dict[int, int] = {}
        self.shared: dict[int, int] = {}
        self.read_only: dict[int, int] = {}
        self.unmapped: dict[int, int] = {}
        self._data: dict[int, bytearray] = {}

    @property
    def npages(self) -> int:
        """Size in 4 KiB pages."""
        return self.size // PAGE

    def is_gone(self, page: int) -> bool:
        """Return whether an access would have to fault the page in."""
        return bool(self.gone) and bool(self.gone.get(page >> 9, 0) >> (page & 511) & 1)

    @property
    def is_untouched(self) -> bool:
        """Whether the owner may write to all pages, and all are there."""
        return not (self.gone or self.shared or self.read_only)

    def is_writable(self, page: int, npages: int = 1) -> bool:
        """Return whether all of some pages can be taken for writing without waiting."""
        if self.is_untouched:
            return True
        return not any(
            masks.get(block, 0) & mask
            for block, mask in blocks(page, npages)
            for masks in (self.gone, self.shared, self.read_only)
        )

    def is_copied(self, page: int) -> bool:
        """Return whether a write has to copy the page that is mapped now."""
        block, bit = page >> 9, 1 << (page & 511)
        return bool((self.zero.get(block, 0) | self.shared.get(block, 0)) & bit)

    def is_shared(self, page: int) -> bool:
        """Return whether a forked child may have the page too."""
        return bool(self.shared.get(page >> 9, 0) >> (page & 511) & 1)

    def is_unmapped(self, page: int) -> bool:
        """Return whether the owner has no memory there any more."""
        return bool(self.unmapped) and bool(self.unmapped.get(page >> 9, 0) >> (page & 511) & 1)

    def pfn_of(self, page: int) -> int:
        """Return the host page behind a page: that of all zeros where a read has put it."""
        if self.zero and self.zero.get(page >> 9, 0) >> (page & 511) & 1:
            return ZERO_PFN
        return self.pfn + page

    def is_read_only(self, page: int) -> bool:
        """Return whether the owner may only read the page."""
        return bool(self.read_only) and bool(self.read_only.get(page >> 9, 0) >> (page & 511) & 1)

    def is_large(self, page: int) -> bool:
        """Return whether the page is part of a 2 MiB page."""
        return self.level(page) == 2

    @property
    def has_large(self) -> bool:
        """Whether some pages may be large."""
        return self.thp or bool(self.hugetlb) or bool(self.whole)

    def level(self, page: int) -> int:
        """Return the level of the page's size: 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB."""
        if self.hugetlb:
            return 3 if self.hugetlb >= GIANT else 2
        block = page >> 9
        return 2 if (self.thp and block not in self.split) or block in self.whole else 1

    def fault_in(self, page: int, *, write: bool = True) -> None:
        """Bring a page back that is gone; a read gets the zero page."""
        block, bit = page >> 9, 1 << (page & 511)
        if not write:
            self.zero[block] = self.zero.get(block, 0) | bit
            return
        for masks in (self.gone, self.zero, self.shared):
            _store(masks, block, masks.get(block, 0) & ~bit)

    def share(self) -> None:
        """Share all pages that are there with a child."""
        for block, mask in blocks(0, self.npages):
            _store(self.shared, block, mask & ~self.gone.get(block, 0))

    def is_all_large(self, page: int, npages: int) -> bool:
        """Return whether a range has large pages only."""
        return all(self.level(block * BLOCK_PAGES) > 1 for block, _ in blocks(page, npages))

    def collapse(self, page: int, npages: int) -> None:
        """Put one page of 2 MiB in place of each 512 small ones of a range."""
        for block, mask in blocks(page, npages):
            if mask == (1 << BLOCK_PAGES) - 1:
                self.split.discard(block)
                self.whole.add(block)
                for masks in (self.gone, self.zero, self.shared):
                    masks.pop(block, None)

    def munmap(self, page: int, npages: int) -> None:
        """Take these pages away for good."""
        self.unmap(page, npages)
        for block, mask in blocks(page, npages):
            self.unmapped[block] = self.unmapped.get(block, 0) | mask

    def populate_nothing(self) -> None:
        """Begin without any page; they will be small ones."""
        self.gone.update(blocks(0, self.npages))
        self.split.update(self.gone)

    def unmap(self, page: int, npages: int) -> None:
        """Take these pages and their content away; 2 MiB pages are split."""
        for block, mask in blocks(page, npages):
            self.gone[block] = self.gone.get(block, 0) | mask
            for masks in (self.zero, self.shared):
                _store(masks, block, masks.get(block, 0) & ~mask)
            self._split(block)
            for index in range(BLOCK_PAGES):
                if mask >> index & 1:
                    self._data.pop(block * BLOCK_PAGES + index, None)

    def protect(self, page: int, npages: int, *, writable: bool) -> None:
        """Let the owner only read these pages, or write them again."""
        for block, mask in blocks(page, npages):
            old = self.read_only.get(block, 0)
            _store(self.read_only, block, old & ~mask if writable else old | mask)
            if mask != (1 << BLOCK_PAGES) - 1:
                self._split(block)

    def _split(self, block: int) -> None:
        self.split.add(block)
        self.whole.discard(block)

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes at an offset. Raises EINVAL beyond the end."""
        if offset + len(data) > self.size:
            raise KernelError(EINVAL, f"{self.name} has {self.size} bytes")
        while data:
            at = offset % PAGE
            piece = data[: PAGE - at]
            page = self._data.setdefault(offset // PAGE, bytearray(PAGE))
            page[at : at + len(piece)] = piece
            offset += len(piece)
            data = data[len(piece) :]

    def written(self) -> dict[int, bytes]:
        """Return the content of each page that is not all zero, by its number."""
        return {page: bytes(data) for page, data in self._data.items() if any(data)}

    def holds(self, page: int) -> bool:
        """Return whether a page was written."""
        return page in self._data

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes within one page; bytes that were never written are zero."""
        page = self._data.get(offset // PAGE)
        if page is None:
            return bytes(size)
        at = offset % PAGE
        return bytes(page[at : at + size])


class HostSpace:
    """All mappings of the owner, by name and by address."""

    def __init__(self) -> None:
        self._named: dict[str, HostMemory] = {}
        self._starts: list[int] = []
        self._by_start: list[HostMemory] = []
        self._next_hva = _FIRST_HVA
        self._next_pfn = _FIRST_PFN
        self._private: HostMemory | None = None

    def add(self, name: str, size: int, *, thp: bool = False, hugetlb: int = 0) -> HostMemory:
        """Map memory, aligned to its pages and to 2 MiB, all pages present.

        Raises EEXIST for a name in use, EINVAL for a size that is not a number of pages, ENOMEM
        when the address space is full.
        """
        if name in self._named:
            raise KernelError(EEXIST, f"there is memory {name!r}")
        if not size or size % PAGE:
            raise KernelError(EINVAL, f"{size} is not a number of pages")
        if hugetlb and size % hugetlb:
            raise KernelError(EINVAL, f"{size} is not a number of pages of hugetlbfs")
        rounded = -(-size // LARGE) * LARGE
        align = max(hugetlb, LARGE)
        self._next_hva = -(-self._next_hva // align) * align
        self._next_pfn = -(-self._next_pfn // (align // PAGE)) * (align // PAGE)
        if self._next_hva + rounded > USER_SPACE_END:
            raise KernelError(ENOMEM, f"no room for {size} bytes below {USER_SPACE_END:#x}")
        memory = HostMemory(
            name, size, thp=thp, hva=self._next_hva, pfn=self._next_pfn, hugetlb=hugetlb
        )
        self._next_hva += rounded + LARGE
        self._next_pfn += rounded // PAGE
        self._named[name] = memory
        self._map(memory)
        return memory

    @property
    def memories(self) -> list[HostMemory]:
        """All mappings that commands can name, in the order in which they were added."""
        return list(self._named.values())

    @property
    def private(self) -> HostMemory | None:
        """The page behind KVM's private slots; None before the first one."""
        return self._private

    def private_page(self) -> HostMemory:
        """Return the page behind KVM's private slots, which no command can name."""
        if self._private is None:
            self._private = HostMemory(
                "private", PAGE, thp=False, hva=_PRIVATE_HVA, pfn=_PRIVATE_PFN
            )
            self._map(self._private)
        return self._private

    def _map(self, memory: HostMemory) -> None:
        at = bisect_right(self._starts, memory.hva)
        self._starts.insert(at, memory.hva)
        self._by_start.insert(at, memory)

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each named mapping."""
        return {name: memory.size for name, memory in self._named.items()}

    def named(self, name: str) -> HostMemory:
        """Return the memory of this name. Raises ENOENT."""
        if name not in self._named:
            raise KernelError(ENOENT, f"there is no memory {name!r}")
        return self._named[name]

    def at(self, hva: int) -> HostMemory | None:
        """Return the memory that an address lies in, or None."""
        index = bisect_right(self._starts, hva) - 1
        if index < 0:
            return None
        memory = self._by_start[index]
        return memory if hva < memory.hva + memory.size else None


def blocks(page: int, npages: int) -> list[tuple[int, int]]:
    """Return the blocks of 512 pages that a range touches, each with the mask of pages in it."""
    found = []
    end = page + npages
    while page < end:
        block, low = divmod(page, BLOCK_PAGES)
        high = min(BLOCK_PAGES, low + end - page)
        found.append((block, (1 << high) - (1 << low)))
        page = (block + 1) * BLOCK_PAGES
    return found


def _store(masks: dict[int, int], block: int, mask: int) -> None:
    if mask:
        masks[block] = mask
    else:
        masks.pop(block, None)
