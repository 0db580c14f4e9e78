"""One recording on one machine: every step by writes to control files, then compared.

Events, counters and results are compared with the recorded ones. What the recordings leave out
or rewrite is left out and rewritten here as well: tests/oracle/kvm/README.md, "normalisation".
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from fakesys.core.errors import KernelError
from tests.replay_kvm.host_ops import HostOps
from tests.replay_kvm.machines import DEBUG, VM_NAME, Events, Files
from tests.replay_kvm.normal import DROPPED_COUNTERS, GAUGES, Normal, expanded

SP_EVENTS = (
    "kvm_mmu_get_page",
    "kvm_mmu_prepare_zap_page",
    "kvm_mmu_zap_all_fast",
    "kvm_mmu_sync_page",
    "kvm_mmu_unsync_page",
)


UNCOUNTED = {"kvm_entry", "kvm_exit", "kvm_page_fault"}
# Counters that the recordings of hosts give as a range where runs differ.
RANGED = ("exits", "fpu_reload")


@dataclass
class Verdict:
    """How a scenario went: steps that agree, of how many; what differs."""

    name: str
    steps: int = 0
    sp_events: int = 0
    all_events: int = 0
    counters: int = 0
    results: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Does every step agree in everything?"""
        return not self.differences

    def line(self) -> str:
        """One line for the terminal."""
        return (
            f"{self.name:24} {self.steps:3} steps: SP events {self.sp_events:3}, all events"
            f" {self.all_events:3}, counters {self.counters:3}, results {self.results:3}"
            f"  {'equal' if self.equal else 'DIFFERS'}"
        )


class Replay(HostOps):
    """One scenario on one machine. `normal`: how the recordings write events."""

    def __init__(
        self,
        files: Files,
        events: Events,
        aliases: dict[str, list[str]],
        normal: Normal | None = None,
    ) -> None:
        super().__init__(files, normal or Normal())
        self._events = events
        self._aliases = aliases
        self._pending: list[tuple[str, int, str]] = []
        self._directory = ""
        self._counters: dict[str, dict[str, int]] = {}
        # Of `RANGED`, before the step.
        self._ranged: dict[str, int] = {}
        self._vcpu_now = 0

    def run(self, scenario: dict[str, Any]) -> Verdict:
        """All steps."""
        verdict = Verdict(scenario["scenario"])
        for number, step in enumerate(scenario["steps"]):
            self._step(verdict, number, step)
        return verdict

    def _step(self, verdict: Verdict, number: int, step: dict[str, Any]) -> None:
        where = f"{verdict.name}[{number}] {step['op']}"
        self._events.take()
        before = self._read_counters()
        self._ranged = self._all_counters() if self._directory else {}
        result = self._do(step["op"], step.get("args", {}), step)
        lines = self._normal.lines(self._events.take())
        verdict.steps += 1
        expected = self._normal.expected(self._expand(self._recorded(step)))
        verdict.sp_events += self._same(
            verdict, f"{where}: SP events", only_sp(expected), only_sp(lines)
        )
        if "event_counts" in step:
            counts = Counter(line.split(":")[0] for line in lines)
            # These were not counted there.
            for name in UNCOUNTED & counts.keys():
                del counts[name]
            verdict.all_events += self._same(
                verdict, f"{where}: event counts", step["event_counts"], dict(counts)
            )
        else:
            verdict.all_events += self._same_events(
                verdict, f"{where}: events", expected, lines, step
            )
        changed = self._changes(before)
        verdict.counters += self._same_counters(verdict, where, step, changed)
        self._check_ranges(verdict, where, step)
        known = [step.get("result", {})]
        known += [outcome["result"] for outcome in step.get("outcomes", {}).get("result", [])]
        if result in known:
            verdict.results += 1
        else:
            verdict.results += self._same(verdict, f"{where}: result", known[0], result)

    def _same_events(
        self,
        verdict: Verdict,
        what: str,
        expected: list[str],
        found: list[str],
        step: dict[str, Any],
    ) -> int:
        outcomes = step.get("outcomes", {}).get(
            "events_full" if self._normal.full else "events", []
        )
        for outcome in outcomes:
            for events in outcome.values():
                if isinstance(events, list) and found == self._normal.expected(expanded(events)):
                    return 1
        return self._same(verdict, what, expected, found)

    def _same(self, verdict: Verdict, what: str, expected: object, found: object) -> int:
        if expected == found:
            return 1
        verdict.differences.append(f"{what}{_difference(expected, found)}")
        return 0

    def _same_counters(
        self, verdict: Verdict, where: str, step: dict[str, Any], changed: dict[str, Any]
    ) -> int:
        expected = step.get("counters", {})
        known = [outcome["counters"] for outcome in step.get("outcomes", {}).get("counters", [])]
        if changed in (expected, *known):
            return 1
        for key, values in step.get("variants", {}).items():
            _, scope, name = key.split(".")
            if changed.get(scope, {}).get(name) in values:
                merged = {k: dict(v) for k, v in changed.items()}
                merged[scope][name] = expected[scope][name]
                if merged == expected:
                    return 1
        return self._same(verdict, f"{where}: counters", expected, changed)

    def _recorded(self, step: dict[str, Any]) -> list[str]:
        found: list[str] = step.get("events", step.get("sp_events", []))
        return step.get("events_full", found) if self._normal.full else found

    def _check_ranges(self, verdict: Verdict, where: str, step: dict[str, Any]) -> None:
        if not self._normal.hosts or not self._directory or "outcomes" in step:
            return
        after = self._all_counters()
        for scope, recorded in step.get("counters_noisy", {}).items():
            for name in RANGED:
                change = after[name] - self._ranged.get(name, 0)
                expected = recorded.get(name, 0)
                low, high = expected if isinstance(expected, list) else (expected, expected)
                # An interrupt of the host is an exit, too.
                irqs = recorded.get("irq_exits", 0)
                low -= max(irqs) if isinstance(irqs, list) else irqs
                if not low <= change <= high:
                    what = f"{where}: {scope} {name}"
                    verdict.differences.append(f"{what}{_difference([low, high], change)}")

    def _all_counters(self) -> dict[str, int]:
        directory = f"{DEBUG}/kvm/{self._directory}"
        return {name: int(self._files.read(f"{directory}/{name}")) for name in RANGED}

    def _expand(self, events: list[str]) -> list[str]:
        lines: list[str] = []
        for event in events:
            lines.extend(self._aliases.get(event, [event]))
        return expanded(lines)

    def _do(self, op: str, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        handler = getattr(self, f"_op_{op}")
        try:
            done: dict[str, Any] = handler(args, step) or {}
        except KernelError as error:
            return {"errno": error.name}
        return done

    def _op_mem(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        command = self._mem_command(args)
        # Here memory belongs to a VM, there to the process.
        self._pending.append((args["name"], args["size"], command))
        if self._directory:
            self._add_memories()

    def _add_memories(self) -> None:
        for name, size, command in self._pending:
            self._ctl(f"{VM_NAME} {command}")
            if self._normal.hosts:
                # No slot has it yet: this only tells where it is.
                self._events.take()
                self._ctl(f"{VM_NAME} notifier invalidate {name} size=4096")
                [line] = self._events.take()
                self._normal.learn(name, int(line.split()[-3], 16), size)
        self._pending.clear()

    def _op_create_vm(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        known = set(self._files.listdir(f"{DEBUG}/kvm"))
        self._ctl(f"vm create {VM_NAME} irqchip=none")
        (self._directory,) = set(self._files.listdir(f"{DEBUG}/kvm")) - known
        self._counters = {}
        created = self._events.take()
        self._add_memories()
        self._events.untake(created)
        shape = re.sub(r"\d+", "N", self._directory)
        return {"debugfs_dir": "<pid>-<fd>" if shape == "N-N" else self._directory}

    def _op_irqchip(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        self._ctl(f"{VM_NAME} irqchip")

    def _op_destroy_vm(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        self._ctl(f"vm destroy {VM_NAME}")
        there = self._directory in self._files.listdir(f"{DEBUG}/kvm")
        directory = self._directory
        self._directory = ""
        return {"debugfs_dir": directory if there else None}

    def _op_slot(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        backing = f" mem={args['mem']} off={args.get('off', 0)}" if "mem" in args else ""
        self._ctl(
            f"{VM_NAME} slot {args['slot']} gpa={args['gpa']} size={args['size']}{backing}"
            f" flags={args.get('flags', 0)}"
        )

    def _op_badslot(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        self._ctl(
            f"{VM_NAME} slot {args['slot']} gpa={args['gpa']} size={args['size']}"
            f" ua={args['ua']} flags={args['flags']}"
        )

    def _op_quirks2(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        self._ctl(f"{VM_NAME} quirks {args['mask']}")

    def _op_cap(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        self._ctl(f"{VM_NAME} cap {args['cap']} {args['arg']}")

    def _op_guest_tables(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        words = f" n={args['n']}" if "n" in args else ""
        if args.get("large"):
            words += " large=" + ",".join(map(str, args["large"]))
        self._ctl(f"{VM_NAME} guest_tables{words}")

    def _op_create_vcpu(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        self._ctl(f"{VM_NAME} vcpu add id={args['id']} start=0")
        return self._vcpu_directory(args["id"])

    def _op_close_vcpu(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        self._ctl(f"{VM_NAME} vcpu {args['id']} close")
        return self._vcpu_directory(args["id"])

    def _op_smi(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        self._ctl(f"{VM_NAME} vcpu {args['id']} smi")

    def _op_ring(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        words = f"ring first={args['first']} n={args['n']}"
        found = self._ctl(f"{VM_NAME} vcpu {args['id']} {words}")["entries"]
        return {
            "entries": [[int(number) for number in entry.split(":")] for entry in found.split(",")]
        }

    def _op_ring_reset(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        return {"reset": int(self._ctl(f"{VM_NAME} ring_reset")["reset"])}

    def _op_setup_vcpu(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        self._ctl(f"{VM_NAME} vcpu {args['id']} setup real={int(args.get('real', False))}")

    def _op_set_cr3(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        self._ctl(f"{VM_NAME} vcpu {args['id']} cr3 {args['cr3']}")

    def _op_guest(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        self._vcpu_now = args["vcpu"]
        items = [f"{kind}=" + ",".join(map(str, numbers)) for kind, *numbers in args["prog"]]
        words = self._ctl(f"{VM_NAME} vcpu {args['vcpu']} run {' '.join(items)}")
        exits = [self._exit(word) for word in filter(None, words.get("exits", "").split(","))]
        return {"exits": exits} if exits else {}

    def _exit(self, word: str) -> Any:
        if self._normal.hosts and word.startswith("E"):
            return {"errno": word}
        return _exit(word)

    def _op_run_real(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        self._vcpu_now = args["vcpu"]
        words = self._ctl(f"{VM_NAME} vcpu {args['vcpu']} run_real hex={args['code']}")
        return {"exits": words["exits"].split(",")}

    def _op_dirty_log(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        text = self._ctl(f"{VM_NAME} dirty_log {args['slot']}")["dirty"]
        return {"dirty": [] if text == "none" else list(_numbers(text))}

    def _op_clear_dirty(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        self._ctl(f"{VM_NAME} clear_dirty {args['slot']} first={args['first']} n={args['n']}")

    def _op_nr_mmu_pages(self, args: dict[str, Any], step: dict[str, Any]) -> None:
        self._ctl(f"{VM_NAME} nr_mmu_pages {args['n']}")

    def _op_get_nr_mmu_pages(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        return {"value": int(self._ctl(f"{VM_NAME} nr_mmu_pages")["value"])}

    def _op_gauges(self, args: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        names = step["result"]["files"]
        directory = f"{DEBUG}/kvm/{self._directory}"
        return {"files": {name: self._files.read(f"{directory}/{name}") for name in names}}

    def _vcpu_directory(self, vcpu_id: int) -> dict[str, Any]:
        name = f"vcpu{vcpu_id}"
        there = name in self._files.listdir(f"{DEBUG}/kvm/{self._directory}")
        return {"debugfs_dir": name if there else None}

    def _read_counters(self) -> dict[str, int]:
        if not self._directory:
            return {}
        directory = f"{DEBUG}/kvm/{self._directory}"
        return {
            name: int(self._files.read(f"{directory}/{name}"))
            for name in self._files.listdir(directory)
            if not name.startswith("vcpu")
            and name != "mmu_rmaps_stat"
            and not DROPPED_COUNTERS.fullmatch(name)
        }

    def _changes(self, before: dict[str, int]) -> dict[str, Any]:
        """As the recordings write them; of vCPU counters the VM's files show the sums."""
        found: dict[str, dict[str, Any]] = {}
        for name, value in self._read_counters().items():
            if value == before.get(name, 0):
                continue
            vm_wide = name.startswith(("mmu_", "pages_", "remote_", "max_", "nx_"))
            scope = "vm" if vm_wide else f"vcpu{self._vcpu_now}"
            shown = value if name in GAUGES else f"+{value - before.get(name, 0)}"
            found.setdefault(scope, {})[name] = shown
        return found


def _difference(expected: object, found: object) -> str:
    """Two lines; of lists only the first items that differ."""
    which = ""
    if isinstance(expected, list) and isinstance(found, list):
        pairs = zip(expected, found, strict=False)
        place = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        which = f", item {place} of {len(expected)} and of {len(found)}"
        expected, found = expected[place : place + 1], found[place : place + 1]
    return f"{which}\n    recorded {expected}\n    here     {found}"


def _exit(word: str) -> Any:
    reason, *details = word.split(":")
    if not details:
        return reason
    address, direction, length = details
    return {"exit": reason, "mmio": [address, direction, int(length)]}


def _numbers(text: str) -> list[int]:
    numbers: list[int] = []
    for word in text.split(","):
        low, _, high = word.partition("-")
        numbers.extend(range(int(low), int(high or low) + 1))
    return numbers


def only_sp(lines: list[str]) -> list[str]:
    """The events about shadow pages."""
    return [line for line in lines if line.startswith(SP_EVENTS)]
