"""``features.json``, the description of a TensorFlow data set's features, as a flat table of leaves.

Both forms that exist are understood: ``pythonClassName`` with one field per kind (TFDS 4.6 and later), and ``type``
with ``content``. Flat names are joined by ``/`` as in the records; names of steps lose the first part (``steps/``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selfflow_mm.errors import UserError

from ..episode import Feature

__all__ = ["Leaf", "Tree", "read_tree"]

Kind = Literal["array", "text", "picture", "unknown"]
Shape = tuple[int | None, ...]

_STRINGS = ("string", "object", "str", "bytes", "object_")


@dataclass(frozen=True)
class Leaf:
    """One feature that holds values.

    Attributes:
        key: its name in the records: ``steps/observation/image``.
        name: its name in an episode: without ``steps/`` where it belongs to steps.
        kind: ``unknown`` for classes that this reader does not know; kept as the record has them.
        per_step: whether it belongs to steps.
        lists: lengths of the lists around one value, outermost first, the steps included; None where open.
        shape: of one value.
        dtype: numpy's name, ``str`` for strings.
        encoding: of numbers ``""``, ``bytes`` or ``zlib`` (each value as a string of its bytes); of pictures ``jpeg``,
            ``png`` or ``""``.
        optional: whether a value may be missing in a record.
        about: the data set's own words; of an unknown leaf, why it is unknown.
    """

    key: str
    name: str
    kind: Kind
    per_step: bool
    lists: Shape = ()
    shape: Shape = ()
    dtype: str = "float32"
    encoding: str = ""
    optional: bool = False
    about: str = ""

    @property
    def feature(self) -> Feature:
        """What an episode holds under ``name``."""
        inner = self.lists[1:] if self.per_step else self.lists
        if inner and self.kind == "picture":  # lists of pictures: files in a column of objects
            return Feature("array", inner, "bytes", self.encoding, description=self.about)
        shape = self.shape if self.kind == "picture" else inner + self.shape
        kind: Literal["array", "text", "picture"] = "array" if self.kind == "unknown" else self.kind
        if kind == "text" and shape:
            kind = "array"
        return Feature(kind, shape, self.dtype, self.encoding if kind == "picture" else "", description=self.about)


@dataclass(frozen=True)
class Tree:
    """A parsed ``features.json``.

    Attributes:
        json: as the file has it; a writer puts it down again unchanged.
        order: names in the order in which the data set's records hold them, where it is known. TFDS writes records
            with the order of protobuf's hash table, the same in all records of a build; a writer needs it to give the
            same bytes. Without it records are sorted by name.
    """

    json: Mapping[str, Any]
    order: tuple[str, ...] = ()

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        return tuple(_leaves(self.json))

    @property
    def features(self) -> dict[str, Feature]:
        """Of steps, by name."""
        return {leaf.name: leaf.feature for leaf in self.leaves if leaf.per_step and leaf.kind != "unknown"}

    @property
    def metadata_features(self) -> dict[str, Feature]:
        """Of whole episodes, by name."""
        return {leaf.name: leaf.feature for leaf in self.leaves if not leaf.per_step and leaf.kind != "unknown"}

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each feature that is kept without being understood."""
        return tuple(leaf.about for leaf in self.leaves if leaf.kind == "unknown")

    def __getstate__(self) -> dict[str, Any]:
        return {"json": self.json, "order": self.order}


def read_tree(path: Path) -> Tree:
    """Parse a ``features.json``.

    Raises:
        UserError: it cannot be read, or describes no episodes.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read ({error})") from error
    tree = Tree(found)
    try:
        leaves = tree.leaves
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"'{path}' is not a features.json of tensorflow_datasets ({error!r})") from error
    if not any(leaf.per_step for leaf in leaves):
        raise UserError(f"'{path}' describes examples without steps, so the data set holds no robot episodes (RLDS)")
    return tree


def _leaves(root: Mapping[str, Any]) -> Iterator[Leaf]:
    children = _children(root)
    if children is None:
        raise ValueError("the outermost feature is not a FeaturesDict")
    steps = next((name for name, node in children.items() if _class(node) == "Dataset"), None)
    if steps is None and "steps" in children and _class(children["steps"]) == "Sequence":
        steps = "steps"
    for name, node in children.items():
        for leaf in _walk(node, name, ()):
            if name != steps:
                yield leaf
            else:  # steps that are bare values keep their only name
                yield replace(leaf, per_step=True, name=leaf.key.removeprefix(f"{steps}/"))


def _walk(node: Mapping[str, Any], key: str, lists: Shape) -> Iterator[Leaf]:
    kind, content = _class(node), _content(node)
    about = node.get("description", "")
    if not isinstance(about, str):
        about = about.get("desc") or ""
    leaf = Leaf(key, key, "array", False, lists, about=about)
    children = _children(node)
    if children is not None:
        for name, child in children.items():
            yield from _walk(child, f"{key}/{name}", lists)
    elif kind in ("Sequence", "Dataset"):
        length = _whole(content.get("length"))
        yield from _walk(content["feature"], key, (*lists, length))
    elif kind == "Video":
        shape = _shape(content.get("shape")) or (None, None, None, 3)
        encoding = _either(content, "encodingFormat", "encoding_format") or ""
        yield replace(
            leaf, kind="picture", lists=(*lists, shape[0]), shape=shape[1:], dtype=_dtype(content), encoding=encoding
        )
    elif kind == "Image":
        shape = _shape(content.get("shape")) or (None, None, 3)
        encoding = _either(content, "encodingFormat", "encoding_format") or ""
        yield replace(leaf, kind="picture", shape=shape, dtype=_dtype(content), encoding=encoding)
    elif kind == "Text":
        yield replace(leaf, kind="text", dtype="str")
    elif kind == "ClassLabel":
        yield replace(leaf, dtype="int64")
    elif kind in ("Tensor", "Scalar", "BBoxFeature", "Audio"):
        default = {"BBoxFeature": "float32", "Audio": "int64"}.get(kind, "float32")
        yield _tensor(leaf, content, default, (4,) if kind == "BBoxFeature" else (None,) if kind == "Audio" else ())
    else:
        yield replace(leaf, kind="unknown", about=f"'{key}': features of class '{kind}' are kept as they are stored")


def _tensor(leaf: Leaf, content: Mapping[str, Any], default: str, shape: Shape) -> Leaf:
    dtype = _dtype(content, default)
    shape = _shape(content.get("shape")) if content.get("shape") is not None else shape
    encoding = str(content.get("encoding") or "none").lower().rpartition(".")[2]
    unknown = f"'{leaf.key}': values of type '{dtype}' are kept as they are stored"
    if dtype == "bfloat16":  # stored as float32; numpy has no such type
        dtype = "float32" if encoding == "none" else ""
    if content.get("lazyDecode") or content.get("lazy_decode"):  # a sound file as it is
        dtype, shape, encoding = "str", (), "none"
    if dtype == "str":
        return replace(leaf, kind="text", shape=shape, dtype="str", optional=bool(content.get("optional")))
    if not dtype or encoding not in ("none", "bytes", "zlib") or np.dtype(dtype).kind not in "biuf":
        return replace(leaf, kind="unknown", about=unknown)
    return replace(
        leaf,
        shape=shape,
        dtype=dtype,
        encoding="" if encoding == "none" else encoding,
        optional=bool(content.get("optional")),
    )


_FIELDS = {
    "featuresDict": "FeaturesDict",
    "sequence": "Sequence",
    "tensor": "Tensor",
    "classLabel": "ClassLabel",
    "image": "Image",
    "video": "Video",
    "audio": "Audio",
    "boundingBox": "BBoxFeature",
    "text": "Text",
}
_LABELLED = {"LabeledImage": "Image", "BBox": "BBoxFeature"}


def _class(node: Mapping[str, Any]) -> str:
    """What kind of feature this is. The field says it also for classes of the data set's own; its class tells a
    Dataset from a Sequence."""
    name = str(node.get("pythonClassName") or node.get("type") or "").rpartition(".")[2]
    if name == "Dataset":
        return name
    field = next((kind for field, kind in _FIELDS.items() if field in node), None)
    return field or _LABELLED.get(name, name)


def _content(node: Mapping[str, Any]) -> Mapping[str, Any]:
    if "content" in node:
        content = node["content"]
        content = json.loads(content or "{}") if isinstance(content, str) else content
        return content or {}
    return next((node[field] for field in _FIELDS if field in node), {})


def _children(node: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if _class(node) != "FeaturesDict":
        return None
    content = _content(node)
    wrapped = content.get("features")
    if not isinstance(wrapped, Mapping) or any(
        isinstance(wrapped.get(name), str) for name in ("type", "pythonClassName")
    ):
        return content  # the older form, in which "features" is the name of a feature
    return wrapped


def _either(content: Mapping[str, Any], new: str, old: str) -> Any:
    return content.get(new, content.get(old))


def _dtype(content: Mapping[str, Any], default: str = "uint8") -> str:
    name = str(content.get("dtype") or default).removeprefix("tf.").removeprefix("np.")
    if name in _STRINGS:
        return "str"
    if name == "bfloat16":
        return name
    try:
        return np.dtype(name).name
    except TypeError:
        return ""


def _shape(value: Any) -> Shape:
    if isinstance(value, Mapping):
        value = value.get("dimensions", [])
    return tuple(_whole(size) for size in value or [])


def _whole(value: Any) -> int | None:
    """Sizes are numbers or strings; open ones are null or -1."""
    return None if value is None or int(value) < 0 else int(value)
