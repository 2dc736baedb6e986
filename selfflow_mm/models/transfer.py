"""Weights taken over from files into a model, one tensor at a time, with a report of what fitted and what did not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import UserError


@dataclass(frozen=True)
class Recipe:
    """How one of our tensors is made of theirs.

    Attributes:
        names: theirs, laid on top of each other along the first axis.
        swap: exchange the two halves of the rows.
    """

    names: tuple[str, ...]
    swap: bool = False


@dataclass(frozen=True)
class InitReport:
    """What a model took over.

    Attributes:
        source: where from.
        taken: names of ours that were filled -> their number of parameters.
        fresh: names of ours that keep their random start -> their number of parameters.
        not_taken: names of theirs that found no place -> why.
        notes: what differs between the two models and may matter.
    """

    source: str
    taken: dict[str, int] = field(default_factory=dict)
    fresh: dict[str, int] = field(default_factory=dict)
    not_taken: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """A few lines for a person."""
        count, total = sum(self.taken.values()), sum(self.taken.values()) + sum(self.fresh.values())
        lines = [
            f"Started from {self.source}: {_millions(count)} of {_millions(total)} parameters taken "
            f"({len(self.taken)} of {len(self.taken) + len(self.fresh)} tensors)"
        ]
        if self.fresh:
            lines.append(f"  fresh ({_millions(total - count)}): {', '.join(_families(self.fresh))}")
        reasons: dict[str, list[str]] = {}
        for name, why in self.not_taken.items():
            reasons.setdefault(why, []).append(name)
        for why, names in reasons.items():
            lines.append(f"  not taken: {', '.join(_families(names))} ({why})")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def as_dict(self) -> dict[str, Any]:
        """For JSON; the text is in it, too."""
        return {
            "source": self.source,
            "parameters_taken": sum(self.taken.values()),
            "parameters_fresh": sum(self.fresh.values()),
            "taken": list(self.taken),
            "fresh": list(self.fresh),
            "not_taken": dict(self.not_taken),
            "notes": list(self.notes),
            "text": self.text(),
        }


class TensorSource(Protocol):
    """Tensors by name, read when asked for."""

    @property
    def names(self) -> list[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def read(self, name: str) -> Tensor: ...


class TensorFiles:
    """The tensors of safetensors files by name, read when asked for; nothing is kept.

    Raises:
        UserError: a file is missing or broken, or holds less than its index says.
    """

    def __init__(self, files: Iterable[Path], index: Mapping[str, str] | None = None) -> None:
        self._where: dict[str, tuple[Path, Any]] = {}
        for path in files:
            try:
                opened = safe_open(path, framework="pt")
                names = list(opened.keys())
            except (SafetensorError, OSError) as error:
                raise UserError(f"{path} is not a readable safetensors file: {error}") from None
            self._where |= {name: (path, opened) for name in names}
        missing = [name for name in index or () if name not in self._where]
        if missing:
            raise UserError(f"the index names '{missing[0]}' in {index and index[missing[0]]}, which does not hold it")

    @classmethod
    def in_folder(cls, folder: Path, stem: str) -> TensorFiles:
        """``stem.safetensors``, or the shards that ``stem.safetensors.index.json`` lists."""
        whole, listing = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
        if whole.is_file():
            return cls([whole])
        if not listing.is_file():
            raise UserError(f"{folder} holds neither {whole.name} nor {listing.name}; other formats are not read")
        try:
            index = json.loads(listing.read_text(encoding="utf-8"))["weight_map"]
            shards = [folder / Path(name).name for name in dict.fromkeys(index.values())]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{listing} is not an index of safetensors shards: {error}") from None
        for shard in shards:
            if not shard.is_file():
                raise UserError(f"{listing.name} lists {shard.name}, which is missing from {folder}")
        return cls(shards, index)

    @property
    def names(self) -> list[str]:
        return list(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._where[name][1].get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        path, opened = self._where[name]
        try:
            return opened.get_tensor(name)
        except SafetensorError as error:
            raise UserError(f"{path}: '{name}' cannot be read: {error}") from None


@torch.no_grad()
def take_over(
    model: nn.Module,
    files: TensorSource,
    recipes: Mapping[str, Recipe],
    source: str,
    notes: Iterable[str] = (),
    reasons: Mapping[str, str] | None = None,
) -> InitReport:
    """Fill every parameter of ``model`` that a recipe makes in its very shape; the rest stays as it is.

    Beside the model there is never more than one tensor of the source in memory; numbers are converted to the
    parameters' own type.

    Args:
        model: is changed in place; its parameters must have memory.
        files: the source.
        recipes: name of ours -> how it is made.
        source: named in the report.
        notes: go into the report.
        reasons: name of theirs -> why it is left, where "no such layer here" would not do.
    """
    taken: dict[str, int] = {}
    fresh: dict[str, int] = {}
    used: set[str] = set()
    unfit: dict[str, str] = {}
    have = set(files.names)
    for name, parameter in model.named_parameters():
        recipe = recipes.get(name)
        if recipe is None or not have.issuperset(recipe.names):
            fresh[name] = parameter.numel()
            continue
        stacked = _stacked([files.shape(n) for n in recipe.names])
        if stacked != tuple(parameter.shape):
            fresh[name] = parameter.numel()
            unfit |= {n: f"shape {_shape(stacked)} there, {_shape(tuple(parameter.shape))} here" for n in recipe.names}
            continue
        places = parameter.split([files.shape(n)[0] for n in recipe.names]) if len(recipe.names) > 1 else [parameter]
        for theirs, place in zip(recipe.names, places, strict=True):
            place.copy_(files.read(theirs))
        if recipe.swap:
            parameter.copy_(torch.cat(parameter.chunk(2)[::-1]))
        taken[name] = parameter.numel()
        used |= set(recipe.names)
    left = {n: (reasons or {}).get(n) or unfit.get(n, "no such layer here") for n in files.names if n not in used}
    return InitReport(source, taken, fresh, left, tuple(notes))


def _stacked(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    if len(shapes) == 1 or len({s[1:] for s in shapes}) > 1:
        return shapes[0]
    return (sum(s[0] for s in shapes), *shapes[0][1:])


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    """What two shapes of models disagree about, one sentence each."""
    names = [name for name in here if name in there and here[name] != there[name]]
    return [f"{name} is {_plain(there[name])} there and {_plain(here[name])} here" for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object; UserError where it is broken, an empty one where it holds something else."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is broken: {error}") from None
    return about if isinstance(about, dict) else {}


_NUMBER = re.compile(r"^(.*?)\.(\d+)\.")


def _families(names: Iterable[str]) -> list[str]:
    """Tensor names gathered into layers: ``media_in.audio``, ``double_blocks.5-6``."""
    numbered: dict[str, list[int]] = {}
    families: dict[str, None] = {}
    for name in names:
        match = _NUMBER.match(name)
        if match and "." not in match[1]:
            numbers = numbered.setdefault(match[1], [])
            if int(match[2]) not in numbers:
                numbers.append(int(match[2]))
            families[match[1]] = None
        else:
            families[name.rsplit(".", 1)[0]] = None
    return [f"{f}.{_ranges(sorted(numbered[f]))}" if f in numbered else f for f in families]


def _ranges(numbers: list[int]) -> str:
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _plain(value: Any) -> str:
    return str(list(value)) if isinstance(value, list | tuple) else str(value)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count:,}"
