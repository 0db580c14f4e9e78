"""All orders of the steps of a task, breadth first."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import factorial, prod
from typing import NamedTuple

from msgspec import Struct

from fakesys.core.errors import KernelError
from fakesys.explore.copies import Copies, Copy
from fakesys.explore.invariants import INVARIANTS
from fakesys.explore.script import Done, script_of
from fakesys.explore.task import Must, Task, TaskError
from fakesys.explore.watch import Watch
from fakesys.machine.hardware import ScenarioError
from fakesys.machine.machine import Machine
from fakesys.machine.playback.replay import InMemory, done
from fakesys.machine.system_calls import WOULD_WAIT
from fakesys.subsystems.control.script import Step

# States of the machine of which a copy is kept, and of these the newest that are not packed; others
# are made again by their steps.
COPIES, UNPACKED = 20_000, 2_000
# Of places, in bits: 16 actors of 1000 steps each.
_MACHINES = 40
_ACTORS = 4


class Progress(NamedTuple):
    """How far it is. `states`: places of the actors with a state of the machine."""

    states: int
    machines: int
    executed: int
    depth: int
    depths: int


class Violation(NamedTuple):
    """What does not hold after `steps` steps of actors, and the script that leads there."""

    wrong: tuple[str, ...]
    steps: int
    script: str


class Outcome(NamedTuple):
    """What was found. `orders`: how many there are; `decided`: how many were tried to their end.

    `complete`: nothing is left to try.
    """

    progress: Progress
    orders: int
    decided: int
    complete: bool
    violation: Violation | None


class Known(Struct):
    """A state of the machine. `cause`: the state and the step that it was first made by.

    `wrong`: what does not hold; `at_end`: what does not hold if this is the end.
    """

    cause: tuple[int, Step] | None
    wrong: tuple[str, ...]
    at_end: tuple[str, ...]


class Edge(NamedTuple):
    """What a step does in a state.

    `wrong`: what the step itself did not keep. `waits`: on a mount it would wait.
    """

    result: str
    machine: int
    wrong: tuple[str, ...]
    waits: bool


def explore(
    task: Task, limit: int | None = None, progress: Callable[[Progress], None] | None = None
) -> Outcome:
    """Try all orders of the steps of a task; end at the first violation.

    `limit`: of states. Raises TaskError for a machine that cannot be made, or a step before the
    actors' that is refused. Ctrl-C ends it with what was found so far.
    """
    with _few_collections():
        search = Search(task)
        search.run(limit, progress or (lambda _: None))
    return search.outcome


@contextmanager
def _few_collections() -> Iterator[None]:
    """Let the collector look at what is new only, and seldom: nearly all of it stays."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


class Search:
    """The search of one task; see `explore`."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.world = World(task)
        self._lengths = tuple(len(steps) for steps in task.steps)
        # Place of each actor in one number, of mixed radix.
        self._units = tuple(
            prod(n + 1 for n in self._lengths[:i]) for i in range(len(self._lengths))
        )
        self._end = sum(n * unit for n, unit in zip(self._lengths, self._units, strict=True))
        # Each state that was found, with the one before and the actor that went on.
        self._seen: dict[int, int] = {}
        self._decided = self._depth = 0
        self._complete = False
        self._violation: Violation | None = None

    @property
    def progress(self) -> Progress:
        """How far it is."""
        world = self.world
        found = len(self._seen), len(world.known), world.executed
        return Progress(*found, self._depth, sum(self._lengths))

    @property
    def outcome(self) -> Outcome:
        """What was found so far."""
        orders = factorial(sum(self._lengths)) // prod(map(factorial, self._lengths))
        return Outcome(self.progress, orders, self._decided, self._complete, self._violation)

    def run(self, limit: int | None, tell: Callable[[Progress], None]) -> None:
        """Search until a violation, the end, the limit or Ctrl-C."""
        level = {self._state(0, self.world.root): 1}
        self._seen = dict.fromkeys(level, -1)
        if self._found(next(iter(level)), self.world.known[self.world.root].wrong):
            return
        try:
            while level:
                following: dict[int, int] = {}
                for state, ways in level.items():
                    if self._expand(state, ways, following) or self._beyond(limit):
                        return
                    tell(self.progress)
                level = following
                self._depth += 1
        except KeyboardInterrupt:
            return
        # Orders that differ in where an actor had to wait end in states that were counted already.
        self._complete, self._decided = True, self.outcome.orders

    def _beyond(self, limit: int | None) -> bool:
        return limit is not None and len(self._seen) > limit

    def _expand(self, state: int, ways: int, following: dict[int, int]) -> bool:
        """Do the next step of each actor; return whether something does not hold."""
        place, machine = state >> _MACHINES, state & (1 << _MACHINES) - 1
        if place == self._end:
            self._decided += ways
            return self._found(state, self.world.known[machine].at_end)
        waiting = []
        for actor, step in self._next_steps(place):
            new, edge = self._go(place, machine, actor, step)
            if new == state:
                waiting.append(actor)
            if new in following:
                following[new] += ways
            elif new not in self._seen:
                self._seen[new] = state << _ACTORS | actor
                following[new] = ways
            wrong = (*self.world.known[edge.machine].wrong, *edge.wrong)
            if wrong and self._found(new, wrong, state << _ACTORS | actor):
                return True
            self._go_ahead(new)
        return self._are_stuck(state, waiting)

    def _are_stuck(self, state: int, waiting: list[int]) -> bool:
        """Return whether all actors that have a step left wait, with nothing that could end it."""
        left = dict(self._next_steps(state >> _MACHINES))
        if len(waiting) < len(left) or "waits" in self._task.without:
            return False
        names = self._task.actors
        wrong = tuple(f"{names[actor]} waits for ever: {left[actor].path}" for actor in waiting)
        return self._found(state, wrong, state << _ACTORS | waiting[0])

    def _go(self, place: int, machine: int, actor: int, step: Step) -> tuple[int, Edge]:
        edge = self.world.edge(machine, step)
        moved = place if edge.waits else place + self._units[actor]
        return self._state(moved, edge.machine), edge

    def _go_ahead(self, state: int) -> None:
        """Try steps that follow on the state that the machine is in: its copy is not needed then.

        All of them are asked for later.
        """
        world = self.world
        while (machine := state & (1 << _MACHINES) - 1) == world.present:
            place = state >> _MACHINES
            for actor, step in self._next_steps(place):
                if not world.is_tried(machine, step):
                    state, _ = self._go(place, machine, actor, step)
                    break
            else:
                return

    def _next_steps(self, place: int) -> Iterator[tuple[int, Step]]:
        for actor, (unit, length) in enumerate(zip(self._units, self._lengths, strict=True)):
            at = place // unit % (length + 1)
            if at < length:
                yield actor, self._task.steps[actor][at]

    @staticmethod
    def _state(place: int, machine: int) -> int:
        return place << _MACHINES | machine

    def _found(self, state: int, wrong: tuple[str, ...], came: int | None = None) -> bool:
        """Keep a violation after the way to `state`, whose last step is `came` if given."""
        if not wrong:
            return False
        way = self._way(state, self._seen[state] if came is None else came)
        script = script_of(self.world.machine, [*self.world.before, *way], wrong)
        self._violation = Violation(wrong, len(way), script)
        return True

    def _way(self, state: int, came: int) -> list[Done]:
        way = []
        while came >= 0:
            before, actor = came >> _ACTORS, came & (1 << _ACTORS) - 1
            place, machine = before >> _MACHINES, before & (1 << _MACHINES) - 1
            step = dict(self._next_steps(place))[actor]
            edge = self.world.edge(machine, step)
            way.append(Done(self._task.actors[actor], step._replace(result=edge.result)))
            came = self._seen[before]
        return way[::-1]


class Waiting(InMemory):
    """A machine of this process. `waits`: a write was not answered, as it would wait on a mount."""

    waits = False

    def write(self, path: str, text: bytes, *, truncate: bool) -> int:
        """Write as a process does on a mount."""
        try:
            return super().write(path, text, truncate=truncate)
        except KernelError as refusal:
            self.waits = refusal.why == WOULD_WAIT
            raise


class World:
    """The machine of a task in all states that were found, by their numbers.

    `before`: the steps before those of the actors. `executed`: how many steps were done. `present`:
    the state that the machine is in, negative for none that has a number.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.machine = _machine_of(task)
        self._target = Waiting(self.machine)
        self._target.write("sys/kernel/debug/fakesys/clock/rate", b"0\n", truncate=True)
        self.before = tuple(Done("", self._required(step)) for step in task.before)
        self._copies = Copies(self.machine)
        self._watch = Watch(self.machine)
        self._watches = "counters" not in task.without
        self._invariants = [check for name, check in INVARIANTS.items() if name not in task.without]
        self._numbers: dict[bytes, int] = {}
        self.known: list[Known] = []
        self._kept: dict[int, Copy] = {}
        self._edges: dict[tuple[int, Step], Edge] = {}
        self.executed = 0
        self.root = self._number(None, "")
        self._root_copy = self._kept[self.root]
        self.present = self.root

    def is_tried(self, machine: int, step: Step) -> bool:
        """Return whether `edge` knows the answer."""
        return (machine, step) in self._edges

    def edge(self, machine: int, step: Step) -> Edge:
        """Return what a step does in a state; it is done at most once."""
        edge = self._edges.get((machine, step))
        if edge is None:
            edge = self._edges[machine, step] = self._edge(machine, step)
        return edge

    def _edge(self, machine: int, step: Step) -> Edge:
        self._go_to(machine)
        self.present = -1
        result, waits, counted = self._do(step)
        self.present = self._number((machine, step), step.path)
        return Edge(result, self.present, counted, waits)

    def _do(self, step: Step) -> tuple[str, bool, tuple[str, ...]]:
        """Do a step; return its result, whether it would wait, and what it did not tell."""
        self.executed += 1
        if self._watches:
            self._watch.begin()
        self._target.waits = False
        result = done(step, self._target)
        if self.machine.control.bugs:
            raise RuntimeError(self.machine.control.bugs[0])
        return (
            result,
            self._target.waits,
            tuple(self._watch.end(step.path)) if self._watches else (),
        )

    def _go_to(self, machine: int) -> None:
        """Take the machine to a state: by its copy, or by the steps from one that has a copy."""
        if self.present == machine:
            return
        steps = []
        copy = self._copy(machine)
        while copy is None:
            cause = self.known[machine].cause
            assert cause is not None
            machine, step = cause
            steps.append(step)
            copy = self._copy(machine)
        self._copies.restore(copy)
        for step in reversed(steps):
            self.executed += 1
            done(step, self._target)
            self._copies.take(step.path, ())

    def _copy(self, machine: int) -> Copy | None:
        return self._root_copy if machine == self.root else self._kept.get(machine)

    def _number(self, cause: tuple[int, Step] | None, path: str) -> int:
        """Return the number of the present state; of a new one, find out what does not hold."""
        texts = tuple(self._text(must) for must in self._task.must)
        copy, digest = self._copies.take(path, texts)
        number = self._numbers.get(digest)
        if number is not None:
            return number
        number = self._numbers[digest] = len(self.known)
        models = self.machine.subsystems
        found = [line for check in self._invariants for line in check(models)]
        wrong = (*found, *self._unlike("always", texts))
        self.known.append(Known(cause, wrong, self._unlike("end", texts)))
        self._kept[number] = copy
        if (old := number - UNPACKED) in self._kept:
            self._kept[old] = self._kept[old].packed
        self._kept.pop(number - COPIES, None)
        return number

    def _text(self, must: Must) -> str:
        try:
            return self.machine.read(must.file).removesuffix("\n")
        except KernelError as refusal:
            return f"\0{refusal.name}"

    def _unlike(self, when: str, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            f"{must.file}: {_told(text)}, not {_told(_wanted(must))}"
            for must, text in zip(self._task.must, texts, strict=True)
            if must.when == when and text != _wanted(must)
        )

    def _required(self, step: Step) -> Step:
        result = done(step, self._target)
        if result not in ("ok", ""):
            refusal = self.machine.control.last_error
            why = "" if refusal is None else f": {refusal.error.why}"
            raise TaskError(f"before: {step.path} {step.text!r}: {result}{why}")
        return step._replace(result=result)


def _wanted(must: Must) -> str:
    return f"\0{must.error}" if must.text is None else must.text.removesuffix("\n")


def _told(text: str) -> str:
    return text[1:] if text.startswith("\0") else repr(text)


def _machine_of(task: Task) -> Machine:
    try:
        return Machine(task.machine.profile, task.machine)
    except (KernelError, ScenarioError) as error:
        raise TaskError(f"{task.name}: {error}") from None
