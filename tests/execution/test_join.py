"""Which entries of both sides the joined `/sys` has, on a host that has all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakesys.execution import join
from fakesys.execution.join import Join


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What each entry of the joined directory shows: the side and the path in it."""
    fake, real, target = (tmp_path / name for name in ("fake", "real", "joined"))
    for path in (fake / "module/vfio_ap", real / "module/vfio_ap", real / "module/kvm"):
        path.mkdir(parents=True)
    for path in (real / "module/loop", real / "bus/ap", real / "bus/cpu", fake / "bus/selftest"):
        path.mkdir(parents=True)
    target.mkdir()
    bound: dict[str, str] = {}

    def bind(source: Path, place: Path) -> None:
        bound[str(place.relative_to(target))] = str(source.relative_to(tmp_path))

    monkeypatch.setattr(join, "bind", bind)
    Join(fake, real, target, prepare=lambda _path, _target: None).run()
    assert {str(path.relative_to(target)) for path in target.glob("*/*")} == set(bound)
    return bound


def test_a_simulated_directory_hides_that_of_the_host(shown: dict[str, str]) -> None:
    assert shown["module/vfio_ap"] == "fake/module/vfio_ap"


def test_what_the_simulated_kernel_lacks_is_hidden_on_the_host_too(shown: dict[str, str]) -> None:
    assert not {"module/kvm", "bus/ap"} & set(shown)


def test_other_directories_are_those_of_both_sides(shown: dict[str, str]) -> None:
    assert shown["module/loop"] == "real/module/loop"
    assert shown["bus/cpu"] == "real/bus/cpu"
    assert shown["bus/selftest"] == "fake/bus/selftest"
