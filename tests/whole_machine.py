"""Everything that one can read of a machine, and much that one can do to it."""

from __future__ import annotations

from collections.abc import Iterator

from fakesys.core.errors import KernelError
from fakesys.machine.machine import Machine
from fakesys.tree.node import Directory, File, Symlink

CONTROL = "sys/kernel/debug/fakesys"
TRACING = "sys/kernel/tracing"
AP = "sys/bus/ap"
MATRIX = "sys/devices/vfio_ap/matrix"
U1, U2 = (f"{n}0000000-0000-4000-8000-000000000000" for n in (1, 2))
CREATE = f"{MATRIX}/mdev_supported_types/vfio_ap-passthrough/create"
CTL = f"{CONTROL}/kvm/ctl"
# Reading takes away what is there: read last, and on both sides.
CONSUMING = ("trace_pipe", "trace_pipe_raw")


def everything(machine: Machine, top: str = "") -> dict[str, object]:
    """Path -> names of a directory, target of a link, text of a file or errno of its read.

    Of all that is below the directory `top`.
    """
    directory = machine.fs.resolve(top)
    assert isinstance(directory, Directory)
    found = dict(below(machine, directory))
    late = sorted(path for path in found if path.endswith(CONSUMING))
    for path in late:
        found[path] = _text(machine, path)
    return found


def below(machine: Machine, directory: Directory) -> Iterator[tuple[str, object]]:
    """The same of one directory; what reading takes away is left empty."""
    entries = list(directory.entries())
    yield f"{directory.path}/", sorted(name for name, _ in entries)
    for _, node in entries:
        if isinstance(node, Directory):
            yield from below(machine, node)
        elif isinstance(node, Symlink):
            yield node.path, node.target
        elif isinstance(node, File):
            late = node.name in CONSUMING
            yield node.path, "" if late else (oct(node.mode), _text(machine, node.path))


def _text(machine: Machine, path: str) -> object:
    # The file that would hold all of this once more is no text.
    if path == f"{CONTROL}/snapshot":
        return ""
    try:
        return machine.read(path)
    except KernelError as refusal:
        return refusal.name


def differences(one: Machine, other: Machine) -> list[tuple[str, object, object]]:
    """Where two machines read differently: path and both texts."""
    left, right = everything(one), everything(other)
    return [
        (path, left.get(path), right.get(path))
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
    ]


def attempt(machine: Machine, path: str, text: str) -> str:
    """The name of a write's errno, `ok` when it is taken."""
    try:
        if path.endswith("/mkdir"):
            machine.fs.mkdir(machine.fs.resolve(path.removesuffix("/mkdir")), text)
        elif path.endswith("/rmdir"):
            machine.fs.rmdir(machine.fs.resolve(path.removesuffix("/rmdir")), text)
        else:
            machine.write(path, text)
    except KernelError as refusal:
        return refusal.name
    return "ok"


# Writes that stand for all that can be done; their order is a history.
WRITES: tuple[tuple[str, str], ...] = (
    (f"{TRACING}/trace_clock", "mono\n"),
    (f"{TRACING}/trace_clock", "counter\n"),
    (f"{TRACING}/buffer_size_kb", "64\n"),
    (f"{TRACING}/buffer_percent", "10\n"),
    (f"{TRACING}/options/overwrite", "0\n"),
    (f"{TRACING}/tracing_on", "0\n"),
    (f"{TRACING}/tracing_on", "1\n"),
    (f"{TRACING}/set_event_pid", "700 701 702\n"),
    (f"{TRACING}/set_event_pid", "\n"),
    (f"{TRACING}/instances/mkdir", "gone"),
    (f"{TRACING}/instances/rmdir", "gone"),
    (f"{TRACING}/events/kvm/enable", "1\n"),
    (f"{TRACING}/events/kvmmmu/enable", "1\n"),
    (f"{TRACING}/events/kvm/kvm_exit/filter", "exit_reason == 1 || isa == 2\n"),
    (f"{TRACING}/events/kvm/kvm_entry/filter", "common_pid > 5 && vcpu_id < 3\n"),
    (f"{TRACING}/events/kvm/kvm_exit/trigger", "hist:keys=exit_reason:vals=isa:sort=exit_reason\n"),
    (f"{TRACING}/events/kvm/kvm_entry/trigger", "hist:keys=vcpu_id.log2,common_pid:name=h\n"),
    (f"{TRACING}/events/kvm/kvm_page_fault/trigger", "stacktrace:3\n"),
    (f"{TRACING}/events/kvm/kvm_msr/trigger", "snapshot:2 if ecx == 5\n"),
    (f"{TRACING}/events/kvm/kvm_apic/trigger", "disable_event:kvm:kvm_exit\n"),
    (f"{TRACING}/events/kvm/nothing/filter", "x\n"),
    (f"{TRACING}/instances/mkdir", "foo"),
    (f"{TRACING}/instances/foo/events/kvm/kvm_exit/enable", "1\n"),
    (f"{TRACING}/set_event", "kvm:kvm_pio\nkvmmmu\n"),
    (f"{TRACING}/events/kvm/kvm_exit/filter", "no_such_field == 1\n"),
    (f"{AP}/apmask", "-0-255\n"),
    (f"{AP}/aqmask", "-0-255\n"),
    (f"{AP}/apmask", "+5\n"),
    (f"{AP}/config_time", "5\n"),
    (f"{AP}/poll_thread", "1\n"),
    (f"{AP}/devices/card05/online", "0\n"),
    (f"{AP}/devices/card05/online", "1\n"),
    (CREATE, f"{U1}\n"),
    (CREATE, f"{U2}\n"),
    (f"{MATRIX}/{U1}/assign_adapter", "5\n"),
    (f"{MATRIX}/{U1}/assign_domain", "4\n"),
    (f"{MATRIX}/{U2}/assign_adapter", "6\n"),
    (f"{MATRIX}/{U2}/assign_domain", "0xab\n"),
    (f"{MATRIX}/{U2}/assign_domain", "4\n"),
    (f"{MATRIX}/{U1}/unassign_domain", "4\n"),
    (f"{MATRIX}/{U2}/remove", "1\n"),
    (f"{CONTROL}/ap/new_guest", "guest1\n"),
    (f"{CONTROL}/ap/new_guest", "guest2 ap=0\n"),
    (f"{CONTROL}/ap/guests/guest1/attach", f"{U1}\n"),
    (f"{CONTROL}/ap/del_guest", "guest2\n"),
    (f"{CONTROL}/ap/new_card", "9 CEX7 ep11\n"),
    (f"{CONTROL}/ap/del_card", "9\n"),
    (f"{CONTROL}/ap/remove_policy", "request\n"),
    (f"{CONTROL}/clock/advance", "31\n"),
    (f"{CONTROL}/clock/advance", "0.75\n"),
    (f"{CONTROL}/seed", "7\n"),
    (f"{CONTROL}/lockdown", "1\n"),
    (f"{CONTROL}/lockdown", "0\n"),
    (f"{CONTROL}/faults/store", "*/assign_adapter EIO after=2 times=1\n"),
    (f"{CONTROL}/faults/store", "\n"),
    (f"{CONTROL}/faults/queue_reset", "05.0004 3\n"),
    (f"{CONTROL}/kvm/params/mmio_gen_bits", "18\n"),
    (CTL, "vm create a pid=700 fd=12\n"),
    (CTL, "vm create b pid=701 irqchip=split\n"),
    (CTL, "a vcpu add count=3\n"),
    (CTL, "b vcpu add\n"),
    (CTL, "b vcpu 0 close\n"),
    (CTL, "vm close b\n"),
    (CTL, "vm destroy b\n"),
    (CTL, "a mem ram size=16M\n"),
    (CTL, "a slot 0 gpa=0 size=8M mem=ram off=0 flags=log_dirty\n"),
    (CTL, "a slot 1 gpa=0x1000000 size=4M mem=ram off=8M\n"),
    (CTL, "a slot 1 gpa=0 size=0\n"),
    (CTL, "a slot 2 gpa=0x2000000 size=2M mem=ram off=8M\n"),
    (CTL, "a guest_tables\n"),
    (CTL, "a vcpu 0 setup\n"),
    (CTL, "a vcpu 0 run r=0x200000 w=0x300000 rloop=0x400000,16\n"),
    (CTL, "a vcpu 1 access w 0x0 n=600\n"),
    (CTL, "a vcpu 0 access r 0x1000000 n=40 stride=8192\n"),
    (CTL, "a dirty_log 0\n"),
    (CTL, "a notifier unmap ram off=0 size=64K\n"),
    (CTL, "shrink n=2\n"),
    (f"{TRACING}/snapshot", "1\n"),
    (f"{TRACING}/tracing_cpumask", "ff\n"),
    (f"{TRACING}/events/kvm/enable", "0\n"),
    (f"{TRACING}/events/kvm/enable", "1\n"),
    (CTL, "a race slot=2 vcpus=2 ws=1M max_rounds=20\n"),
    (CTL, "a vcpu 1 start\n"),
    (CTL, "a vcpu 2 start cpu=3\n"),
    (CTL, "a vcpu 1 cli\n"),
    (CTL, "a vcpu 1 ipi dst=2 vec=0x40\n"),
    (CTL, "a vcpu 2 eoi\n"),
    (CTL, "a vcpu 2 hlt\n"),
    (CTL, "a pic base=0x20 imr=0\n"),
    (CTL, "a ioapic 4 vec=0x34 dst=1 mask=0\n"),
    (CTL, "a pulse 4\n"),
    (CTL, "a pulse 0\n"),
    (CTL, "a extint 0x31\n"),
    (CTL, "a vcpu 1 sti\n"),
    (CTL, "a dev add nic irq=40 gsi=24 vec=0x51 dst=1\n"),
    (CTL, "a dev fire nic 5\n"),
    (CTL, "a vcpu 0 hv synic\n"),
    (CTL, "a vcpu 2 apic write 0x80 0x20\n"),
    (CTL, "nonsense\n"),
    (f"{CONTROL}/kvm/preset", "linux-boot vcpus=4 name=lin\n"),
    (f"{CONTROL}/kvm/preset", "windows2019-boot vcpus=2 name=win hv_synic=1\n"),
    ("sys/kernel/debug/kvm/700-12/exits", "0\n"),
    (f"{CONTROL}/selftest/notify", "1\n"),
    (f"{CONTROL}/selftest/remove", "1\n"),
    (f"{CONTROL}/selftest/create", "1\n"),
    ("sys/devices/virtual/selftest/selftest0/rw", "42\n"),
    (f"{TRACING}/trace_marker", "hello\n"),
    (f"{TRACING}/instances/foo/trace_marker", "in foo\n"),
    (f"{CONTROL}/profile", "6.1\n"),
    (f"{CONTROL}/reset", "1\n"),
)
