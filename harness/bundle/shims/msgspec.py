"""A stand-in for msgspec where it is not installed: what detbench's records use of it, no more.

Slower, in plain Python, for a device that has numpy and one runtime. The tests hold each record
that it writes and reads to the real library's.
"""

from __future__ import annotations

import json as _json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

_MISSING = object()
_NAMES = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null", dict: "object"}


class DecodeError(Exception):
    """Not JSON."""


class ValidationError(DecodeError):
    """JSON of another shape."""


class _Field:
    def __init__(self, default_factory: Any) -> None:
        self.default_factory = default_factory


def field(*, default_factory: Any) -> Any:
    return _Field(default_factory)


class Struct:
    """Keyword-only and frozen, as all of detbench's records are."""

    __struct_fields__: typing.ClassVar[tuple[str, ...]] = ()
    _tag: typing.ClassVar[str | None] = None
    _closed: typing.ClassVar[bool] = False
    _hints: typing.ClassVar[dict[str, Any] | None] = None

    def __init_subclass__(
        cls,
        frozen: bool = False,
        kw_only: bool = False,
        forbid_unknown_fields: bool | None = None,
        tag: str | None = None,
    ) -> None:
        own = [n for n, kind in cls.__annotations__.items() if not str(kind).startswith("ClassVar")]
        own = [name for name in own if name not in cls.__struct_fields__]
        cls.__struct_fields__ = (*cls.__struct_fields__, *own)
        cls._hints = None
        if forbid_unknown_fields is not None:
            cls._closed = forbid_unknown_fields
        if tag is not None:
            cls._tag = tag

    def __init__(self, **values: Any) -> None:
        for name in self.__struct_fields__:
            value = values.pop(name, _MISSING)
            if value is _MISSING:
                value = _default(type(self), name)
            if value is _MISSING:
                raise TypeError(f"Missing required argument '{name}'")
            object.__setattr__(self, name, value)
        if values:
            raise TypeError(f"Unexpected keyword argument '{next(iter(values))}'")
        post = getattr(self, "__post_init__", None)
        if post is not None:
            post()

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"immutable type: '{type(self).__name__}'")

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__struct_fields__)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        pairs = zip(self.__struct_fields__, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in pairs)})"


def _default(kind: type[Struct], name: str) -> Any:
    found = getattr(kind, name, _MISSING)
    if isinstance(found, _Field):
        return found.default_factory()
    return found.copy() if isinstance(found, dict | list) else found


class structs:  # noqa: N801  # the real library's name
    """``msgspec.structs``"""

    @staticmethod
    def replace(record: Any, **changes: Any) -> Any:
        return type(record)(**{**structs.asdict(record), **changes})

    @staticmethod
    def asdict(record: Any) -> dict[str, Any]:
        return {name: getattr(record, name) for name in record.__struct_fields__}


def to_builtins(value: Any) -> Any:
    if isinstance(value, Struct):
        tag = {"type": value._tag} if value._tag is not None else {}
        return {**tag, **{k: to_builtins(v) for k, v in structs.asdict(value).items()}}
    if isinstance(value, Mapping):
        return {key: to_builtins(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_builtins(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


class json:  # noqa: N801  # the real library's name
    """``msgspec.json``"""

    @staticmethod
    def encode(value: Any, *, order: str | None = None) -> bytes:
        plain = _finite(to_builtins(value))
        text = _json.dumps(
            plain, separators=(",", ":"), ensure_ascii=False, sort_keys=order == "sorted"
        )
        return text.encode()

    @staticmethod
    def format(data: bytes, *, indent: int = 2) -> bytes:
        return _json.dumps(_json.loads(data), indent=indent, ensure_ascii=False).encode()

    @staticmethod
    def decode(data: bytes | str, *, type: Any = Any) -> Any:
        try:
            plain = _json.loads(data)
        except ValueError as error:
            raise DecodeError(f"JSON is malformed: {error}") from None
        return convert(plain, type)


def _finite(value: Any) -> Any:
    """NaN and infinity become null, as the real library writes them."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def convert(value: Any, type: Any, *, from_attributes: bool = False, at: str = "$") -> Any:
    """``value`` as ``type``; raises ValidationError with the place."""
    origin, arguments = get_origin(type), get_args(type)
    if type is Any:
        return value
    if origin in (Union, types.UnionType):
        return _union(value, arguments, at)
    if origin is Literal:
        if value in arguments and any(value is a or value == a for a in arguments):
            return value
        raise ValidationError(f"Invalid enum value {value!r} - at `{at}`")
    if origin in (tuple, list) or type in (tuple, list):
        return _sequence(value, origin or type, arguments, at)
    if origin is dict or type is dict:
        return _mapping(value, arguments or (Any, Any), at)
    if _is_struct(type):
        return _struct(value, type, from_attributes, at)
    return _plain(value, type, at)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _plain(value: Any, kind: Any, at: str) -> Any:
    if kind is None or kind is type(None):
        if value is None:
            return None
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    elif type(value) is kind:
        return value
    raise ValidationError(f"Expected `{_name(kind)}`, got `{_name(type(value))}` - at `{at}`")


def _name(kind: Any) -> str:
    return _NAMES.get(kind, "array" if kind in (list, tuple) else str(kind))


def _union(value: Any, kinds: tuple[Any, ...], at: str) -> Any:
    """The kind that the value already is, else the first that takes it."""
    tagged = {kind._tag: kind for kind in kinds if getattr(kind, "_tag", None)}
    if tagged and isinstance(value, dict) and value.get("type") in tagged:
        return convert(value, tagged[value["type"]], at=at)
    if type(value) in kinds:
        return value
    errors = []
    for kind in kinds:
        try:
            return convert(value, kind, at=at)
        except ValidationError as error:
            errors.append(error)
    raise errors[0]


def _sequence(value: Any, kind: Any, arguments: tuple[Any, ...], at: str) -> Any:
    if not isinstance(value, list | tuple):
        raise ValidationError(f"Expected `array`, got `{_name(type(value))}` - at `{at}`")
    if kind is tuple and arguments and Ellipsis not in arguments:
        if len(value) != len(arguments):
            raise ValidationError(f"Expected `array` of length {len(arguments)} - at `{at}`")
        pairs = zip(value, arguments, strict=True)
        return tuple(convert(v, a, at=f"{at}[{i}]") for i, (v, a) in enumerate(pairs))
    item = arguments[0] if arguments else Any
    if item is float and all(type(one) is float for one in value):
        return kind(value)  # samples: by far the most
    return kind(convert(one, item, at=f"{at}[...]") for one in value)


def _mapping(value: Any, arguments: tuple[Any, ...], at: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise ValidationError(f"Expected `object`, got `{_name(type(value))}` - at `{at}`")
    return {key: convert(item, arguments[1], at=f"{at}[...]") for key, item in value.items()}


def _struct(value: Any, kind: type[Struct], from_attributes: bool, at: str) -> Any:
    if isinstance(value, kind):
        return value
    if from_attributes and not isinstance(value, Mapping):
        names = (n for n in kind.__struct_fields__ if hasattr(value, n))
        value = {name: getattr(value, name) for name in names}
    if not isinstance(value, Mapping):
        raise ValidationError(f"Expected `object`, got `{_name(type(value))}` - at `{at}`")
    if kind._hints is None:
        kind._hints = typing.get_type_hints(kind)
    found: dict[str, Any] = {}
    for name, item in value.items():
        if name in kind.__struct_fields__:
            found[name] = convert(item, kind._hints[name], at=f"{at}.{name}")
        elif kind._closed and not (name == "type" and kind._tag is not None):
            raise ValidationError(f"Object contains unknown field `{name}` - at `{at}`")
    for name in kind.__struct_fields__:
        if name not in found and _default(kind, name) is _MISSING:
            raise ValidationError(f"Object missing required field `{name}` - at `{at}`")
    return kind(**found)
