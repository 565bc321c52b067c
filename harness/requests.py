"""What a user asks for, written ``name`` or ``name:key=value,key=value``.

``mb2_ssd_lite``, ``etinynet_ssd_lite:width=0.35``, ``onnx_int8:calibration=entropy``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec

from harness.errors import BadConfig
from harness.records import Options, Record, Scalar
from harness.registry import suggest


class Request(Record, frozen=True, kw_only=True):
    """A plug-in's name and the options given for it."""

    name: str
    options: Options = msgspec.field(default_factory=dict)

    def __str__(self) -> str:
        given = ",".join(f"{key}={written(value)}" for key, value in sorted(self.options.items()))
        return f"{self.name}:{given}" if given else self.name


def parse(text: str) -> Request:
    """Read ``name:key=value,…``; values are JSON scalars, anything else is a string.

    Raises:
        BadConfig: an empty name, a part without ``=``, a key given twice.
    """
    name, _, tail = text.strip().partition(":")
    options: Options = {}
    for part in filter(None, tail.split(",")):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key:
            raise BadConfig(
                f"'{part}' in '{text}' is not key=value: write name:key=value,key=value"
            )
        if key in options:
            raise BadConfig(f"option '{key}' is given twice in '{text}': keep one")
        options[key] = scalar(value)
    if not name:
        raise BadConfig(f"'{text}' has no name: write name or name:key=value")
    return Request(name=name, options=options)


def scalar(text: str) -> Scalar:
    """``"0.35"`` is a float, ``"true"`` a bool, ``"null"`` None, other text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float | bool | None) else text


def complete(given: Mapping[str, Scalar], defaults: Mapping[str, Scalar], owner: str) -> Options:
    """All options of ``owner`` with the value in force; a number given for a text is text.

    Raises:
        BadConfig: an option that ``owner`` does not have, or a value of another type.
    """
    for key, value in given.items():
        if key not in defaults:
            raise BadConfig(f"{owner} has no option '{key}': {suggest(key, defaults)}")
        default = defaults[key]
        fits = default is None or value is None or _fits(value, default)
        if not fits:
            raise BadConfig(
                f"option '{key}' of {owner} is {value!r}, expected"
                f" {type(default).__name__} such as {default!r}"
            )
    merged: Options = {**defaults, **given}
    for key, default in defaults.items():
        value = merged[key]
        if isinstance(default, float) and isinstance(value, int):
            merged[key] = float(value)
        elif isinstance(default, str) and value is not None:
            merged[key] = written(value)
    return merged


def _fits(value: Scalar, default: Scalar) -> bool:
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, str):
        return isinstance(value, str | int | float)
    return isinstance(value, type(default))


def written(value: Scalar) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def split(text: str) -> list[str]:
    """``"a,b:x=1,y=2"`` as ``["a", "b:x=1,y=2"]``: a bare ``key=value`` belongs to its name."""
    found: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, _ = part.partition("=")
        goes_on = found and ":" in found[-1] and equals and ":" not in key
        if goes_on:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found
