"""Events of shadow pages: asked for, synchronised, zapped, one or all of them."""

from __future__ import annotations

from typing import TypedDict

from fakesys.core import c_types as c
from fakesys.core.tracepoint import Tracepoint, Variant
from fakesys.subsystems.kvm_mmu.events.features import MmuFeature

_ACCESS = ("---", "--x", "w--", "w-x", "-u-", "-ux", "wu-", "wux")


class ShadowPageFields(TypedDict):
    """What every event of a shadow page records."""

    mmu_valid_gen: int
    gfn: int
    role: int
    root_count: int
    unsync: bool


def _page(page: ShadowPage, gen: str, eight_bytes: bool) -> str:
    role = page.role
    return (
        f"sp {gen}gfn {page.gfn:x} l{role & 0xF} {8 if eight_bytes else 4}-byte q{role >> 5 & 3}"
        f"{' direct' if role >> 7 & 1 else ''} {_ACCESS[role >> 8 & 7]}"
        f"{' invalid' if role >> 11 & 1 else ''} {'' if role >> 12 & 1 else '!'}nxe"
        f" {'!' if role >> 16 & 1 else ''}ad root {page.root_count}"
        f" {'unsync' if page.unsync else 'sync'}"
    )


def _with_gen(page: ShadowPage) -> str:
    return _page(page, f"gen {page.mmu_valid_gen} ", not page.role >> 4 & 1)


def _with_old_role(page: ShadowPage) -> str:
    return _page(page, f"gen {page.mmu_valid_gen} ", bool(page.role >> 4 & 1))


def _with_wide_gen(page: ShadowPage) -> str:
    return _page(page, f"gen {page.mmu_valid_gen:x} ", bool(page.role >> 4 & 1))


def _without_gen(page: ShadowPage) -> str:
    return _page(page, "", bool(page.role >> 4 & 1))


def _page_format(gen: str, eight_bytes: str, nx: str) -> str:
    """The C statement that prints a page, as the format file shows it."""
    value = "REC->mmu_valid_gen, " if gen else ""
    return (
        "({ const char *saved_ptr = trace_seq_buffer_ptr(p); static const char *access_str[] = { "
        '"---", "--x", "w--", "w-x", "-u-", "-ux", "wu-", "wux" }; union kvm_mmu_page_role role; '
        f'role.word = REC->role; trace_seq_printf(p, "sp {gen}gfn %llx l%u %u-byte q%u%s %s%s" '
        f'" %snxe %sad root %u %s%c", {value}REC->gfn, role.level, {eight_bytes}, role.quadrant, '
        'role.direct ? " direct" : "", access_str[role.access], role.invalid ? " invalid" : "", '
        f'role.{nx} ? "" : "!", role.ad_disabled ? "!" : "", REC->root_count, '
        'REC->unsync ? "unsync" : "sync", 0); saved_ptr; })'
    )


_FORMAT = _page_format("gen %u ", "role.has_4_byte_gpte ? 4 : 8", "efer_nx")
_OLD_ROLE = ("role.gpte_is_8_bytes ? 8 : 4", "nxe")
_OLD_ROLE_FORMAT = _page_format("gen %u ", *_OLD_ROLE)
_WIDE_FORMAT = _page_format("gen %lx ", *_OLD_ROLE)
_PLAIN_FORMAT = _page_format("", *_OLD_ROLE)

_PLAIN = ("gfn", "role", "root_count", "unsync")
_WIDE = (("mmu_valid_gen", c.c_type(c.UnsignedLong)), *_PLAIN)

_VARIANTS = (
    Variant(
        needs=MmuFeature.TRACE_WIDE_GEN,
        fields=_WIDE,
        print_fmt=f'"%s", {_WIDE_FORMAT}',
        text=_with_wide_gen,
    ),
    Variant(
        unless=MmuFeature.TRACE_VALID_GEN,
        fields=_PLAIN,
        print_fmt=f'"%s", {_PLAIN_FORMAT}',
        text=_without_gen,
    ),
    Variant(
        unless=MmuFeature.SHORT_GPTE, print_fmt=f'"%s", {_OLD_ROLE_FORMAT}', text=_with_old_role
    ),
)


class ShadowPage(Tracepoint):
    """What the events of a shadow page have in common."""

    mmu_valid_gen: c.U8
    gfn: c.U64
    role: c.U32
    root_count: c.U32
    unsync: c.Bool


def _created(page: KvmMmuGetPage) -> str:
    return "new" if page.created else "existing"


_CREATED = 'REC->created ? "new" : "existing"'


class KvmMmuGetPage(ShadowPage):
    """A shadow page was asked for, and found or made."""

    system = "kvmmmu"
    event = "kvm_mmu_get_page"
    common_preempt_count = 1
    print_fmt = f'"%s %s", {_FORMAT}, {_CREATED}'

    created: c.Bool

    def text(self) -> str:
        return f"{_with_gen(self)} {_created(self)}"

    variants = (
        Variant(
            needs=MmuFeature.TRACE_WIDE_GEN,
            fields=(*_WIDE, "created"),
            print_fmt=f'"%s %s", {_WIDE_FORMAT}, {_CREATED}',
            text=lambda page: f"{_with_wide_gen(page)} {_created(page)}",
        ),
        Variant(
            unless=MmuFeature.TRACE_VALID_GEN,
            fields=(*_PLAIN, "created"),
            print_fmt=f'"%s %s", {_PLAIN_FORMAT}, {_CREATED}',
            text=lambda page: f"{_without_gen(page)} {_created(page)}",
        ),
        Variant(
            unless=MmuFeature.SHORT_GPTE,
            print_fmt=f'"%s %s", {_OLD_ROLE_FORMAT}, {_CREATED}',
            text=lambda page: f"{_with_old_role(page)} {_created(page)}",
        ),
    )


class KvmMmuSyncPage(ShadowPage):
    """A page that was out of sync with the guest's table is brought up to date."""

    system = "kvmmmu"
    event = "kvm_mmu_sync_page"
    common_preempt_count = 1
    print_fmt = f'"%s", {_FORMAT}'
    variants = _VARIANTS

    def text(self) -> str:
        return _with_gen(self)


class KvmMmuUnsyncPage(ShadowPage):
    """The guest may write its table from now on: the page goes out of sync."""

    system = "kvmmmu"
    event = "kvm_mmu_unsync_page"
    common_preempt_count = 2
    print_fmt = f'"%s", {_FORMAT}'
    variants = _VARIANTS

    def text(self) -> str:
        return _with_gen(self)


class KvmMmuPrepareZapPage(ShadowPage):
    """A shadow page is taken out of use."""

    system = "kvmmmu"
    event = "kvm_mmu_prepare_zap_page"
    common_preempt_count = 1
    print_fmt = f'"%s", {_FORMAT}'
    variants = _VARIANTS

    def text(self) -> str:
        return _with_gen(self)


class KvmMmuZapAllFast(Tracepoint):
    """Every shadow page became obsolete at once. `mmu_valid_gen`: the generation before."""

    system = "kvmmmu"
    event = "kvm_mmu_zap_all_fast"
    common_preempt_count = 1
    print_fmt = '"kvm-mmu-valid-gen %u used_pages %x", REC->mmu_valid_gen, REC->mmu_used_pages'
    needs = MmuFeature.TRACE_ZAP_FAST

    mmu_valid_gen: c.U8
    mmu_used_pages: c.UnsignedInt

    def text(self) -> str:
        return f"kvm-mmu-valid-gen {self.mmu_valid_gen} used_pages {self.mmu_used_pages:x}"

    variants = (
        Variant(
            needs=MmuFeature.TRACE_WIDE_GEN,
            fields=(("mmu_valid_gen", c.c_type(c.UnsignedLong)), "mmu_used_pages"),
            print_fmt=(
                '"kvm-mmu-valid-gen %lx used_pages %x", REC->mmu_valid_gen, REC->mmu_used_pages'
            ),
            text=lambda self: (
                f"kvm-mmu-valid-gen {self.mmu_valid_gen:x} used_pages {self.mmu_used_pages:x}"
            ),
        ),
    )
