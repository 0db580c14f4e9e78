"""Which entries of both sides the joined `/sys` has, on a host that has all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakesys.execution import join
from fakesys.execution.base import missing
from fakesys.execution.base.syscalls import StepError
from fakesys.execution.join import Join


class Sides:
    """Two directories and the join of both; `bound` maps each path to what is shown there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fake, self.real, self.target = (folder / name for name in ("fake", "real", "joined"))
        for path in (self.fake, self.real, self.target):
            path.mkdir()
        self.bound: dict[str, str] = {}
        monkeypatch.setattr(missing, "bind", self._bind)
        monkeypatch.setattr(join, "detach", self._detach)
        self.join = Join(
            self.fake, self.real, self.target, prepare=lambda path, _target: self.prepared(path)
        )
        self.prepared_paths: list[str] = []

    def prepared(self, path: str) -> None:
        """Note a path that is about to be bound."""
        self.prepared_paths.append(path)

    def run(self) -> dict[str, str]:
        """Join, and return what is bound."""
        self.join.show_host()
        self.join.show_fake()
        return self.bound

    def _bind(self, source: str, target: str) -> None:
        place = str(Path(target).relative_to(self.target))
        assert place not in self.bound
        self.bound[place] = str(Path(source).relative_to(self.fake.parent))

    def _detach(self, target: str) -> None:
        del self.bound[str(Path(target).relative_to(self.target))]


@pytest.fixture
def sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sides:
    return Sides(tmp_path, monkeypatch)


@pytest.fixture
def shown(sides: Sides) -> dict[str, str]:
    """What each entry of the joined directory shows: the side and the path in it."""
    fake, real = sides.fake, sides.real
    for path in (fake / "module/vfio_ap", real / "module/vfio_ap", real / "module/kvm"):
        path.mkdir(parents=True)
    for path in (real / "module/loop", real / "bus/ap", real / "bus/cpu", fake / "bus/selftest"):
        path.mkdir(parents=True)
    bound = sides.run()
    assert {str(path.relative_to(sides.target)) for path in sides.target.glob("*/*")} == set(bound)
    return bound


def test_a_simulated_directory_hides_that_of_the_host(shown: dict[str, str]) -> None:
    assert shown["module/vfio_ap"] == "fake/module/vfio_ap"


def test_what_the_simulated_kernel_lacks_is_hidden_on_the_host_too(shown: dict[str, str]) -> None:
    assert not {"module/kvm", "bus/ap"} & set(shown)


def test_other_directories_are_those_of_both_sides(shown: dict[str, str]) -> None:
    assert shown["module/loop"] == "real/module/loop"
    assert shown["bus/cpu"] == "real/bus/cpu"
    assert shown["bus/selftest"] == "fake/bus/selftest"


def test_what_both_have_is_that_of_the_machine(sides: Sides) -> None:
    for root, target in ((sides.real, "../host"), (sides.fake, "../machine")):
        for folder in ("class/misc", "devices/virtual/net", "class/net"):
            (root / folder).mkdir(parents=True)
        (root / "class/misc/kvm").symlink_to(target)
        (root / "kernel").mkdir()
        (root / "kernel/notes").touch()
    # A link of one side, a directory of the other.
    (sides.real / "class/misc/vfio").symlink_to("../host")
    (sides.fake / "class/misc/vfio").mkdir()
    (sides.real / "class/zcrypt").mkdir()
    (sides.fake / "class/zcrypt").symlink_to("../machine")
    bound = sides.run()
    assert bound["class/net"] == "fake/class/net"
    assert bound["kernel/notes"] == "fake/kernel/notes"
    assert bound["class/misc/vfio"] == "fake/class/misc/vfio"
    assert (sides.target / "class/misc/kvm").readlink() == Path("../machine")
    assert (sides.target / "class/zcrypt").readlink() == Path("../machine")
    assert "class/zcrypt" not in bound
    assert sides.join.bound == {"class/net", "class/misc/vfio", "devices/virtual/net"}
    assert sides.join.bound == set(join.bound_directories(sides.fake))
    assert {"class/net", "kernel/notes"} <= set(sides.prepared_paths)


def test_misc_devices_of_the_host_stay(sides: Sides) -> None:
    for root, name in ((sides.real, "fuse"), (sides.fake, "z90crypt")):
        (root / "devices/virtual/misc" / name).mkdir(parents=True)
    bound = sides.run()
    assert bound["devices/virtual/misc/fuse"] == "real/devices/virtual/misc/fuse"
    assert bound["devices/virtual/misc/z90crypt"] == "fake/devices/virtual/misc/z90crypt"


def test_an_entry_that_cannot_be_bound_is_left_out(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_source: str, _target: str) -> None:
        raise StepError("it is gone")

    (sides.real / "bus/cpu").mkdir(parents=True)
    (sides.real / "kernel").mkdir()
    (sides.real / "kernel/notes").touch()
    monkeypatch.setattr(missing, "bind", refuse)
    sides.run()
    assert list((sides.target / "bus").iterdir()) == []
    assert list((sides.target / "kernel").iterdir()) == []
