"""Each kernel as features and policies. The only module below the machine that names versions.

A feature chooses rows (`needs=`, `unless=`), a policy is handed to a model's constructor.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EINVAL

from fakesys.core.errors import KernelError


@dataclass(frozen=True, slots=True)
class Profile:
    """A machine: one kernel for each part. The names are those of the control files."""

    name: str
    ap: str
    mmu: str
    apicv: str


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(name="seed", ap="v6", mmu="5.4", apicv="v3"),
        Profile(name="6.1", ap="6.1", mmu="6.1", apicv="6.1"),
        Profile(name="6.18", ap="6.12", mmu="6.18", apicv="6.18"),
    )
}


def profile_of(name: str) -> Profile:
    """The profile of this name. Raises EINVAL."""
    try:
        return PROFILES[name]
    except KeyError:
        known = ", ".join(PROFILES)
        raise KernelError(EINVAL, f"{name!r} is no profile ({known})") from None
