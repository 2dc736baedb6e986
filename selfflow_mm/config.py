"""Configuration: YAML files read into typed frozen dataclasses, every field overridable by its dotted name.

An experiment is a small YAML file whose sections mirror nested dataclasses. Reading one checks every key and
value before anything is computed; a mistake becomes one sentence with the file, the key and the nearest valid one.

Scalars follow YAML 1.2 where YAML 1.1 (PyYAML's default) surprises: ``1e-4`` is a number, ``yes``, ``no``, ``on``
and ``off`` are text, ``010`` is ten, and a key written twice is an error.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

from .config_yaml import Dumper, parse_yaml
from .errors import UserError

T = TypeVar("T")

COMMAND_LINE = "command line"

#: Dataclass -> preset name -> the values it stands for; see ``register_presets``.
_PRESETS: dict[type, Mapping[str, Mapping[str, Any]]] = {}


def register_presets(cls: type, presets: Mapping[str, Mapping[str, Any]]) -> None:
    """Let sections of type ``cls``, which needs a text field ``preset``, start from named values.

    ``preset: NAME`` stands for that preset's values; keys written beside it come before them. On the command line
    ``model.preset=NAME`` comes before the file's keys, and other keys on the command line before the preset. What
    ``dump_yaml`` writes names the preset and every value, so it reads back the same even if the preset changes.

    Args:
        cls: a dataclass that configurations hold.
        presets: name -> field -> value, in the types that YAML has.
    """
    _PRESETS[cls] = presets


def load_config(cls: type[T], path: Path | str | None = None, overrides: Sequence[str] = ()) -> T:
    """Read a configuration file into ``cls`` and apply overrides such as ``model.width=192``.

    Args:
        cls: a dataclass; fields may be int, float, bool, str, Path, Literal, nested dataclasses, ``X | None``,
            ``tuple[X, ...]``, ``tuple[X, Y]`` and ``dict[str, X]``.
        path: a YAML file, or the name of one that ships with the package (see ``find_config``); None starts
            from the defaults of ``cls``.
        overrides: ``dotted.key=value``; the value is read as YAML, so ``null``, ``1e-4``, ``[1, 2]`` work.

    Raises:
        UserError: for a missing file, bad YAML, an unknown or missing key, a wrong type or an impossible value.
    """
    data: dict[str, Any] = {}
    where = "config"
    if path is not None:
        found = find_config(path)
        where = str(path)
        try:
            text = found.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{where}: cannot be read as text: {error}") from error
        loaded = parse_yaml(text, where)
        data = {} if loaded is None else loaded
        if not isinstance(data, dict):
            raise UserError(f"{where}: a configuration is a list of 'key: value' lines, got {_show(data)}")
    origins: dict[str, str] = {}
    for override in overrides:
        _apply_override(data, override, origins)
    return _Reader(cls, where, origins).read_dataclass(cls, data, "")


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "config") -> T:
    """Build ``cls`` from nested plain values (the inverse of ``to_dict``); ``where`` names the source in errors."""
    return _Reader(cls, where, {}).read_dataclass(cls, data, "")


def to_dict(obj: Any) -> dict[str, Any]:
    """A dataclass as nested dicts, lists and scalars that YAML and JSON can write."""
    return {f.name: _plain(getattr(obj, f.name)) for f in dataclasses.fields(obj) if f.init}


def dump_yaml(obj: Any) -> str:
    """A dataclass as YAML text that ``load_config`` reads back to an equal object."""
    return yaml.dump(to_dict(obj), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted keys: ``{"model": {"width": 3}}`` becomes ``{"model.width": 3}``."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def config_folder() -> Path | None:
    """The folder of the configurations that ship with the package, or None where they are not installed."""
    package = Path(__file__).parent
    # In a wheel they lie inside the package; in a checkout beside it.
    return next((p for p in (package / "configs", package.parent / "configs") if p.is_dir()), None)


def find_config(path: Path | str) -> Path:
    """``path`` itself if it exists, else the shipped configuration of that name (``tiny.yaml``, or just ``tiny``)."""
    path = Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a configuration file in it")
    folder = config_folder()
    names: list[str] = []
    if folder is not None:
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.yaml"))
        wanted = path.as_posix().removeprefix("configs/")
        for name in (wanted, f"{wanted}.yaml"):
            if name in names:
                return folder / name
    near = _nearest(path.as_posix(), names) or _nearest(path.name, names)
    hint = f"; the nearest that ships is '{near}'" if near else f"; these ship: {', '.join(names)}" if names else ""
    raise UserError(f"{path}: there is no such configuration file{hint}")


@dataclass(frozen=True)
class _Override:
    """A value from the command line, with its text so that ``name=420`` can fill a text field."""

    text: str
    value: Any


def _apply_override(data: dict[str, Any], override: str, origins: dict[str, str]) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    parts = key.split(".")
    if not equals or not all(parts):
        raise UserError(f"{COMMAND_LINE}: an override is written key=value, such as model.width=192, got '{override}'")
    section = data
    for part in parts[:-1]:
        inner = section.get(part)
        if not isinstance(inner, dict):
            inner = section[part] = {}
        section = inner
    section[parts[-1]] = _Override(text.strip(), parse_yaml(text, f"{COMMAND_LINE}: {key}"))
    origins[key] = COMMAND_LINE


class _Reader:
    """Turns plain values into typed ones; knows the file and the root class to say where a mistake is."""

    def __init__(self, root: type, where: str, origins: Mapping[str, str]) -> None:
        self.root, self.where, self.origins = root, where, origins

    def error(self, key: str, message: str) -> UserError:
        return UserError(f"{self.origins.get(key, self.where)}: {message}")

    def read_dataclass(self, cls: type[T], data: Any, key: str) -> T:
        if isinstance(data, cls):
            return data
        if not isinstance(data, Mapping):
            raise self.error(key, f"'{key}' is {_show(data)}, but is a section with the keys {_keys(cls)}")
        hints = typing.get_type_hints(cls)
        fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
        data = self.with_preset(cls, data, key)
        for name in data:
            if name not in fields:
                raise self.unknown(cls, str(name), key)
        values: dict[str, Any] = {}
        for name, field in fields.items():
            dotted = f"{key}.{name}" if key else name
            if name in data:
                values[name] = self.read(hints[name], data[name], dotted)
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise self.error(dotted, f"the key '{dotted}' is missing")
        try:
            return cls(**values)
        except UserError as error:  # an impossible value, said by the dataclass itself
            raise self.error(self.blame(key, values), f"{key}: {error}" if key else str(error)) from error

    def with_preset(self, cls: type, data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        """``data`` with the values of the preset it names, if it names one."""
        presets = _PRESETS.get(cls)
        chosen = data.get("preset")
        if presets is None or chosen is None:
            return data
        dotted = f"{key}.preset" if key else "preset"
        name = self.read(str, chosen, dotted)
        if not name:
            return data
        if name not in presets:
            near = _nearest(name, list(presets))
            hint = f"the nearest is '{near}'" if near else f"there are {', '.join(presets)}"
            raise self.error(dotted, f"'{dotted}' is '{name}', but there is no such preset; {hint}")
        if isinstance(chosen, _Override):  # said later than the file, so it comes before the file's values
            data = {k: v for k, v in data.items() if k not in presets[name] or isinstance(v, _Override)}
        return {**presets[name], **data}

    def blame(self, key: str, values: Mapping[str, Any]) -> str:
        """The overridden key inside a section, if one may have made the section impossible."""
        names = (f"{key}.{name}" if key else name for name in values)
        return next((name for name in names if name in self.origins), key)

    def unknown(self, cls: type, name: str, key: str) -> UserError:
        dotted = f"{key}.{name}" if key else name
        prefix = f"{key}." if key else ""
        every = list(_dotted_keys(self.root))
        near = _nearest(name, [f.name for f in dataclasses.fields(cls)])
        if near:
            near = prefix + near
        else:  # the right name in the wrong section, or a wrong section
            leaves = [k for k in every if k.rsplit(".", 1)[-1] == name]
            near = leaves[0] if leaves else _nearest(dotted, every)
        hint = f"the nearest is '{near}'" if near else f"known keys: {_keys(cls)}"
        # A mistyped section on the command line is recorded under the full key of its override.
        origin = next((k for k in self.origins if k == dotted or k.startswith(f"{dotted}.")), dotted)
        return self.error(origin, f"unknown key '{dotted}'; {hint}")

    def read(self, hint: Any, value: Any, key: str) -> Any:
        raw = value
        if isinstance(value, _Override):
            value = value.value
        origin, args = get_origin(hint), get_args(hint)
        if origin in (Union, types.UnionType):
            return self.read_optional(args, raw, value, key)
        if origin is Literal:
            if value in args and type(value) in {type(a) for a in args}:
                return value
            near = _nearest(value, [a for a in args if isinstance(a, str)]) if isinstance(value, str) else None
            tail = f"; the nearest is '{near}'" if near else ""
            raise self.wrong(key, value, f"one of {', '.join(map(_show, args))}{tail}")
        if origin is tuple:
            return self.read_tuple(args, value, key)
        if origin is dict:
            if not isinstance(value, Mapping):
                raise self.wrong(key, value, "a section of names and values")
            return {str(k): self.read(args[1], v, f"{key}.{k}") for k, v in value.items()}
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return self.read_dataclass(hint, value, key)
        return self.read_scalar(hint, raw, value, key)

    def read_optional(self, args: tuple[Any, ...], raw: Any, value: Any, key: str) -> Any:
        inner = [a for a in args if a is not type(None)]
        if len(inner) != 1 or len(inner) == len(args):
            raise TypeError(f"{key}: only 'X | None' is supported among unions")
        return None if value is None else self.read(inner[0], raw, key)

    def read_tuple(self, args: tuple[Any, ...], value: Any, key: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise self.wrong(key, value, "a list, such as [1, 2]")
        if len(args) == 2 and args[1] is Ellipsis:
            args = (args[0],) * len(value)
        if len(args) != len(value):
            raise self.wrong(key, value, f"a list of {len(args)} values")
        return tuple(self.read(a, v, f"{key}.{i}") for i, (a, v) in enumerate(zip(args, value, strict=True)))

    def read_scalar(self, hint: Any, raw: Any, value: Any, key: str) -> Any:
        if hint is bool:
            if isinstance(value, bool):
                return value
            raise self.wrong(key, value, "true or false")
        if hint is int:
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            raise self.wrong(key, value, "a whole number")
        if hint is float:
            if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value):
                return float(value)
            raise self.wrong(key, value, "a number")
        if hint is str or hint is Path:
            if isinstance(raw, _Override) and isinstance(value, bool | int | float):
                value = raw.text
            if isinstance(value, str) or (hint is Path and isinstance(value, Path)):
                return hint(value)
            tail = "" if value is None or isinstance(value, list | dict) else f'; write "{value}" in quotes'
            raise self.wrong(key, value, ("text" if hint is str else "a path") + tail)
        raise TypeError(f"{key}: configurations hold no fields of type {hint}")

    def wrong(self, key: str, value: Any, expected: str) -> UserError:
        return self.error(key, f"'{key}' is {_show(value)}, but must be {expected}")


def _dotted_keys(cls: Any, prefix: str = "") -> Iterator[str]:
    """Every valid dotted key under a dataclass, sections included."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        yield f"{prefix}{field.name}"
        hint = hints[field.name]
        for inner in (hint, *(get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ())):
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                yield from _dotted_keys(inner, f"{prefix}{field.name}.")


def _nearest(name: str, valid: Sequence[str]) -> str | None:
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    return close[0] if close else None


def _keys(cls: Any) -> str:
    return ", ".join(f.name for f in dataclasses.fields(cls) if f.init)


def _show(value: Any) -> str:
    """A value as the user would write it in YAML."""
    if isinstance(value, _Override):
        value = value.value
    if isinstance(value, str):
        return f"'{value}'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "a section" if isinstance(value, Mapping) else str(value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value
