"""Changes of one value in a JSON document, as a hostile or broken file has them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from random import Random
from typing import Any

Place = tuple[Any, Any]
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    255,
    256,
    511,
    512,
    4095,
    65535,
    1 << 31,
    1 << 32,
    (1 << 63) - 1,
    1 << 64,
)


def places(value: Any) -> Iterator[Place]:
    """Each container and key or index of the values below `value`."""
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        for key in keys:
            yield value, key
            yield from places(value[key])


def mutate(document: Any, chance: Random, known: list[Place]) -> str:
    """Change one value of a document; return what was changed."""
    holder, key = chance.choice(known)
    value = holder[key]
    new = _changed(value, chance)
    if new is _GONE:
        del holder[key]
    elif isinstance(holder, dict) and chance.random() < 0.1:
        del holder[key]
        holder[str(_changed(key, chance))] = value
    else:
        holder[key] = new
    return f"{str(key)[:40]}: {str(value)[:80]} -> {str(new)[:80]}"


_GONE = object()


def _changed(value: Any, chance: Random) -> Any:
    if chance.random() < 0.03:
        return chance.choice((None, [], {}, "", "x", 0.5, True, _GONE))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice((value + 1, value - 1, value ^ 1 << chance.randrange(40), *NUMBERS))
    if isinstance(value, str):
        return _changed_text(value, chance)
    if isinstance(value, list):
        return _changed_list(value, chance)
    if isinstance(value, dict):
        left = dict(value)
        if left:
            left.pop(chance.choice(list(left)))
        return left
    return chance.choice((1, "a", {}))


def _changed_text(text: str, chance: Random) -> str:
    try:
        data = bytearray(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        data = bytearray()
    if len(data) > 3 and chance.random() < 0.8:
        for _ in range(chance.choice((1, 1, 4, 40))):
            data[chance.randrange(len(data))] = chance.choice(
                (0, 1, 2, 0xFF, chance.randrange(256))
            )
        if chance.random() < 0.2:
            at = chance.randrange(0, len(data), 4)
            del data[at : at + chance.choice((1, 4, 8, 512, 4096))]
        return base64.b64encode(data).decode()
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice("01fz /.\n\0é") + text[at + chance.randrange(2) :]


def _changed_list(values: list[Any], chance: Random) -> list[Any]:
    new = list(values)
    if not new:
        return [chance.choice((0, "a", {}))]
    at = chance.randrange(len(new))
    kind = chance.randrange(4)
    if kind == 0:
        new.append(new[at])
    elif kind == 1:
        del new[at]
    elif kind == 2:
        new.insert(0, new.pop(at))
    else:
        new *= 3
    return new
