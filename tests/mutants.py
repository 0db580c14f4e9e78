"""Documents of JSON with one or a few things wrong in them, as a hostile or broken file has."""

from __future__ import annotations

import base64
import binascii
import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

NUMBERS = (0, 1, -1, 2, 7, 255, 4096, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, 1 << 64, 1 << 70)
TEXTS = ("", "x", "none", "..", "a/b", "\0", "\n", "\u20ac", "0", "-1", "(" * 3000 + ")" * 3000)

Place = tuple[Any, Any]


def mutant(document: Any, chance: random.Random) -> Any:
    """A copy in which one to three values were changed, removed, repeated or exchanged."""
    found = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = list(_places(found))
        # A kind of place first, as most places are pages, names or numbers of events.
        kinds = sorted({_kind(place) for place in places})
        kind = chance.choice(kinds)
        owner, key = chance.choice([place for place in places if _kind(place) == kind])
        chance.choice((_change, _change, _change, _remove, _repeat, _exchange))(
            owner, key, places, chance
        )
    return found


def _places(value: Any) -> Iterator[Place]:
    """Every value below `value`: what it is in, and its key or index there."""
    keys: Any = ()
    if isinstance(value, dict):
        keys = value
    elif isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _kind(place: Place) -> str:
    """What a value is: its name as a field and its type. Items of lists and tables have no name."""
    owner, key = place
    named = isinstance(owner, dict) and str(key).isidentifier()
    return f"{key if named else 'item'} {type(owner[key]).__name__}"


def _change(owner: Any, key: Any, _places: list[Place], chance: random.Random) -> None:
    value = owner[key]
    if isinstance(value, bool) or value is None:
        owner[key] = chance.choice((True, False, None, 1, "x"))
    elif isinstance(value, int | float):
        owner[key] = chance.choice(
            (value + 1, value - 1, value * 2, -value, *NUMBERS, 0.5, str(value))
        )
    elif isinstance(value, str):
        owner[key] = _changed_text(value, chance)
    elif isinstance(value, list):
        chance.shuffle(value)
    else:
        owner[key] = chance.choice(([], {}, None, list(value.values())))


def _changed_text(text: str, chance: random.Random) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: chance.choice(TEXTS),
        lambda: text + chance.choice("xX0 \n\0"),
        lambda: text[: len(text) // 2],
        lambda: text[::-1],
        lambda: None,
    ]
    at = chance.randrange(len(text)) if text else 0
    kinds.append(lambda: text[:at] + chance.choice("0aZ!:=, é") + text[at + 1 :])
    if len(text) > 7:
        kinds.extend([lambda: _changed_bytes(text, chance)] * 4)
    return chance.choice(kinds)()


def _changed_bytes(text: str, chance: random.Random) -> str:
    """The text of other bytes, if it is one of bytes: some are changed, removed or repeated."""
    try:
        data = bytearray(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return text + "="
    at = chance.randrange(len(data))
    at -= at % chance.choice((1, 4))
    size = chance.choice((1, 4, 8))
    kind = chance.randrange(4)
    if kind == 0:
        del data[at : at + size]
    elif kind == 1:
        data[at:at] = data[at : at + size]
    else:
        data[at : at + size] = chance.randbytes(len(data[at : at + size]))
    return base64.b64encode(data).decode()


def _remove(owner: Any, key: Any, _places: list[Place], _chance: random.Random) -> None:
    del owner[key]


def _repeat(owner: Any, key: Any, _places: list[Place], chance: random.Random) -> None:
    value = copy.deepcopy(owner[key])
    if isinstance(owner, list):
        owner.insert(chance.randrange(len(owner) + 1), value)
    else:
        owner[f"{key}2"] = value


def _exchange(owner: Any, key: Any, places: list[Place], chance: random.Random) -> None:
    """Put the value of another place there."""
    other, name = chance.choice(places)
    owner[key] = copy.deepcopy(other[name])
