"""The table of `options/` of an instance: a file for each option."""

from __future__ import annotations

from collections.abc import Iterable
from errno import EINVAL

from msgspec import Struct

from fakesys.subsystems.tracing.files import settings
from fakesys.subsystems.tracing.instances.instance import Instance
from fakesys.tree.attr import Attr, Files, Layout


class OptionFile(Struct, frozen=True):
    """One option of an instance."""

    instance: Instance
    name: str


def _option_names(instance: Instance) -> Iterable[str]:
    return instance.options.names()


def _option(instance: Instance, name: str) -> OptionFile | None:
    return OptionFile(instance, name) if name in instance.options.names() else None


def _write(option: OptionFile, text: str) -> None:
    option.instance.set_option(option.name, settings.zero_or_one(text))


OPTIONS: Layout[Instance] = Layout(
    rows=(
        Files(
            names=_option_names,
            get=_option,
            attr=Attr(
                name="*",
                mode=0o640,
                show=lambda option: f"{int(option.instance.options[option.name])}\n",
                store=_write,
                doc="The same switch as in trace_options.",
                errors={EINVAL: "neither 0 nor 1, or it cannot be changed"},
            ),
        ),
    ),
    mode=0o750,
)
