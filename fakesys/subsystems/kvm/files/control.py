"""`fakesys/kvm`: commands, their results, knobs, and views of what no real file shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from errno import EBUSY, EINVAL, ERANGE, errorcode
from typing import Any

from msgspec import Struct

from fakesys.core.commands import Interpreter
from fakesys.core.errors import KernelError
from fakesys.subsystems.kvm.model import Kvm
from fakesys.subsystems.kvm.params import Param
from fakesys.tree.attr import Attr, Children, Dir, Layout, Mount, Row
from fakesys.tree.kinds import CONTROL


class KernelChoice(Struct, frozen=True):
    """A file that says which kernel a part of KVM behaves like, and changes it."""

    name: str
    doc: str
    get: Callable[[], str]
    choose: Callable[[str], None]


def _doer(kvm: Kvm, text: str) -> AbstractContextManager[None]:
    """What a command does to a VM, its owner does, except where a vCPU's thread acts."""
    words = text.split()
    # `VM ...` or `vm destroy VM`.
    for word in (*words[:1], *words[2:3]):
        if vm := kvm.find(word):
            return kvm.in_owner(vm)
    return nullcontext()


def _commands(interpreter: Interpreter) -> Callable[[Kvm, str], None]:
    """The store() of a file that takes commands; `last` then says what came of it."""

    def store(kvm: Kvm, text: str) -> None:
        try:
            with _doer(kvm, text):
                result = interpreter.run(text)
        except KernelError as refusal:
            kvm.last = f"error {refusal.name} {refusal.why}"
            raise
        kvm.last = f"ok {result}" if result else "ok"

    return store


def _command_errors(interpreter: Interpreter) -> dict[int, str]:
    """Whatever one of the verbs may refuse with; a later verb's cause stands for all."""
    errors = {ERANGE: "a number is too large"} if interpreter.verbs else {}
    for bound in interpreter.verbs:
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
        show=lambda kvm: f"{choice.get()}\n",
        store=store,
        errors={EINVAL: "no such kernel", EBUSY: "a VM exists"},
    )


def _warnings(kvm: Kvm) -> str:
    return "".join(f"{count} {text}\n" for text, count in kvm.warnings.items())


def _help(interpreter: Interpreter) -> str:
    """Every command: how it is written, what it does, its options and refusals."""
    lines = []
    for bound in interpreter.verbs:
        verb = bound.verb
        lines.append(verb.usage)
        lines.append(f"    {verb.doc}")
        lines.extend(f"    {option.name}=  {option.doc}" for option in verb.options)
        lines.extend(f"    {errorcode[number]}: {why}" for number, why in verb.errors.items())
    return "".join(f"{line}\n" for line in lines)


def _views(rows: tuple[Row, ...]) -> Dir[Kvm]:
    below = Children(
        names=lambda kvm: kvm.names,
        get=Kvm.find,
        layout=Layout(rows),
        label="VM",
    )
    return Dir(name="vms", layout=Layout((below,)))


def mounts(
    kvm: Kvm,
    *,
    ctl: Interpreter,
    preset: Interpreter,
    views: tuple[Row, ...] = (),
    choices: Iterable[KernelChoice] = (),
) -> tuple[Mount, ...]:
    """`fakesys/kvm`. `views`: what every VM shows in its directory below `vms`."""
    params: Layout[Kvm] = Layout(tuple(_param_row(row) for row in kvm.params.rows.values()))
    top: Layout[Kvm] = Layout(
        (
            Attr(
                name="ctl",
                mode=0o200,
                doc="One command; `last` then has its result.",
                store=_commands(ctl),
                errors=_command_errors(ctl),
            ),
            Attr(
                name="preset",
                mode=0o200,
                doc="Makes a VM and lets it do what a well-known guest does.",
                store=_commands(preset),
                errors=_command_errors(preset),
            ),
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
            Attr(
                name="warnings",
                mode=0o444,
                doc="`COUNT TEXT` of each warning that a real kernel would have raised.",
                show=_warnings,
            ),
            *(_choice_row(choice) for choice in choices),
            Dir(name="params", layout=params),
            _views(views),
        ),
        kind=CONTROL,
    )
    return (Mount("sys/kernel/debug/fakesys/kvm", top, lambda: kvm),)
