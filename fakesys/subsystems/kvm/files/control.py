"""`fakesys/kvm`: commands, their results, parameters, and views of what no real file shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from errno import EBUSY, EINVAL, ERANGE, errorcode
from typing import Any

from msgspec import Struct

from fakesys.core.commands import Interpreter
from fakesys.core.errors import KernelError
from fakesys.core.scheduling.later import Later, LaterMapping
from fakesys.core.scheduling.resched import might_resched
from fakesys.subsystems.control.files import bracketed, with_current
from fakesys.subsystems.kvm.files.commands import NAME, VM
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.params import Param
from fakesys.tree.attr import Attr, Children, Dir, Layout, Mount, Row
from fakesys.tree.kinds import CONTROL

# The commands of a file, which most machines never need.
Commands = Later[Interpreter]


class KernelChoice(Struct, frozen=True):
    """A file that says which kernel a part of KVM behaves like, and changes it.

    `names`: the kernels there are; others leave out a patch of a series.
    """

    name: str
    doc: str
    names: tuple[str, ...]
    get: Callable[[], str]
    choose: Callable[[str], None]


def _in_process(kvm: Kvm, name: str | None) -> AbstractContextManager[None]:
    """Return the context in which the owner of the VM that a command names does it."""
    vm = None if name is None else kvm.find(name)
    return nullcontext() if vm is None else kvm.in_owner(vm)


def _store_command(kvm: Kvm, text: str, interpreter: Commands) -> None:
    """Run one command; `last` then shows its result or refusal.

    The first command imports what commands need, in slices. Raises Blocked while a command of the
    same VM is at work; one that destroys the VM ends it.
    """
    if not interpreter.is_made:
        might_resched()
    try:
        command = interpreter().find(text)
        name = command.args.find(VM) or command.args.find(NAME)
        if command.bound.verb.ends and name is not None:
            kvm.commands.end(name)
        with kvm.commands.running(name), _in_process(kvm, name):
            result = command.run()
    except KernelError as refusal:
        kvm.last = f"error {refusal.name} {refusal.why}"
        raise
    kvm.last = f"ok {result}" if result else "ok"


def _command_errors(interpreter: Commands) -> dict[int, str]:
    """Return every errno of the verbs with a cause; of several causes that of the last verb."""
    verbs = interpreter().verbs
    errors = {ERANGE: "a number is too large"} if verbs else {}
    for bound in verbs:
        errors.update(bound.verb.errors)
    return errors | {EINVAL: "no such command, option or value"}


def _set_param(kvm: Kvm, text: str, row: Param[Any]) -> None:
    value = row.parse(text.removesuffix("\n"))
    kvm.require_idle()
    kvm.params.choose(row, value)


def _param_row(row: Param[Any]) -> Attr[Kvm]:
    return Attr(
        name=row.name,
        mode=0o644,
        doc=f"{row.doc[:1].upper()}{row.doc[1:].removesuffix('.')}.",
        show=lambda kvm: f"{row.show(kvm.params[row])}\n",
        store=lambda kvm, text: _set_param(kvm, text, row),
        errors={EINVAL: "not a value of this knob", EBUSY: "a VM exists"},
        needs=row.needs,
        unless=row.unless,
    )


def _choice_row(choice: KernelChoice) -> Attr[Kvm]:
    def store(kvm: Kvm, text: str) -> None:
        kvm.require_idle()
        choice.choose(text.removesuffix("\n"))

    return Attr(
        name=choice.name,
        mode=0o644,
        doc=choice.doc,
        show=lambda _kvm: bracketed(with_current(choice.names, choice.get()), choice.get()),
        store=store,
        errors={EINVAL: "no such kernel", EBUSY: "a VM exists"},
    )


def _help(interpreter: Commands) -> str:
    """Return the usage, meaning, options and refusals of every command."""
    lines = []
    for bound in interpreter().verbs:
        verb = bound.verb
        lines.append(verb.usage)
        lines.append(f"    {verb.doc}")
        lines.extend(f"    {option.name}=  {option.doc}" for option in verb.options)
        lines.extend(f"    {errorcode[number]}: {why}" for number, why in verb.errors.items())
    return "".join(f"{line}\n" for line in lines)


def _command_row(name: str, doc: str, interpreter: Commands) -> Attr[Kvm]:
    return Attr(
        name=name,
        mode=0o200,
        doc=doc,
        store=lambda kvm, text: _store_command(kvm, text, interpreter),
        errors=LaterMapping(lambda: _command_errors(interpreter)),
    )


def _command_rows(ctl: Commands, preset: Commands) -> tuple[Row, ...]:
    """Return the files that take commands and those that describe them."""
    return (
        _command_row("ctl", "One command; `last` then has its result.", ctl),
        _command_row("preset", "Makes a VM and lets it do what a well-known guest does.", preset),
        Attr(
            name="help",
            mode=0o444,
            doc="The commands of `ctl`, then those of `preset`, with options and refusals.",
            show=lambda _kvm: _help(ctl) + _help(preset),
        ),
        Attr(
            name="last",
            mode=0o444,
            doc="`ok`, `ok RESULT` or `error ERRNO reason` of the last command.",
            show=lambda kvm: f"{kvm.last}\n" if kvm.last else "",
        ),
    )


_WARNINGS: Attr[Kvm] = Attr(
    name="warnings",
    mode=0o444,
    doc="`COUNT TEXT` of each warning that a real kernel would have raised.",
    show=lambda kvm: "".join(f"{count} {text}\n" for text, count in kvm.warnings.items()),
)


def mounts(
    kvm: Kvm,
    *,
    ctl: Commands,
    preset: Commands,
    views: Callable[[], tuple[Row, ...]] = tuple,
    choices: Iterable[KernelChoice] = (),
) -> tuple[Mount, ...]:
    """Return the mount of `fakesys/kvm`.

    `views`: returns the rows of a VM's directory below `vms`.
    """
    params: Layout[Kvm] = Layout(tuple(_param_row(row) for row in kvm.params.rows.values()))
    vms = Children(names=lambda kvm: kvm.names, get=Kvm.find, layout=Layout(late=views), label="VM")
    top: Layout[Kvm] = Layout(
        (
            *_command_rows(ctl, preset),
            _WARNINGS,
            *(_choice_row(choice) for choice in choices),
            Dir(name="params", layout=params),
            Dir(name="vms", layout=Layout((vms,))),
        ),
        kind=CONTROL,
    )
    return (Mount("sys/kernel/debug/fakesys/kvm", top, lambda: kvm),)
