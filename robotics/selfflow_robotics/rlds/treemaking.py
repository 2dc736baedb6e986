"""A ``features.json`` for declared features, in the form that tensorflow_datasets 4.6 and later writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfflow_mm.errors import UserError

from ..episode import Feature
from .features import Tree

__all__ = ["make_tree"]

_CLASSES = "tensorflow_datasets.core.features."


def make_tree(
    features: Mapping[str, Feature], metadata_features: Mapping[str, Feature] | None = None, steps: str = "steps"
) -> Tree:
    """The tree of a data set with these features of steps and of whole episodes; names are nested at their slashes.

    Float64 and uint64 are stored as bytes, because the lists of ``tf.train.Example`` would round or wrap them. A shape
    that begins with None becomes a list of open length in every step.

    Raises:
        UserError: a name is also the beginning of another one, or a type cannot be stored.
    """
    step = _nest({name: _node(name, feature) for name, feature in features.items()})
    whole = _nest({name: _node(name, feature) for name, feature in (metadata_features or {}).items()})
    if steps in whole:
        raise UserError(f"metadata cannot be called '{steps}', which holds the steps")
    sequence = {"feature": step, "length": "-1"}
    whole["featuresDict"]["features"][steps] = {
        "pythonClassName": f"{_CLASSES}dataset_feature.Dataset",
        "sequence": sequence,
    }
    return Tree(whole)


def _nest(nodes: Mapping[str, Any]) -> dict[str, Any]:
    groups: dict[str, dict[str, Any]] = {}
    for name, node in nodes.items():
        head, _, rest = name.partition("/")
        groups.setdefault(head, {})[rest] = node
    children = {}
    for head, inner in groups.items():
        if "" in inner and len(inner) > 1:
            raise UserError(f"'{head}' cannot be a feature and hold others; rename one of them")
        children[head] = inner[""] if "" in inner else _nest(inner)
    return {"pythonClassName": f"{_CLASSES}features_dict.FeaturesDict", "featuresDict": {"features": children}}


def _node(name: str, feature: Feature) -> dict[str, Any]:
    shape = feature.shape
    node: dict[str, Any]
    if feature.kind == "array" and shape and shape[0] is None:
        inner = _node(name, Feature(feature.kind, shape[1:], feature.dtype, feature.encoding))
        node = {"pythonClassName": f"{_CLASSES}sequence_feature.Sequence", "sequence": {"feature": inner}}
        node["sequence"]["length"] = "-1"
    elif feature.kind == "picture":
        encoding = {"jpeg": "jpeg", "png": "png", "": ""}.get(feature.encoding, "jpeg")
        if feature.dtype != "uint8" or shape[-1:] not in ((1,), (3,)):
            encoding = "png"  # JPEG holds 8 bits in one or three channels
        image = {"shape": _shape(shape), "dtype": feature.dtype} | ({"encodingFormat": encoding} if encoding else {})
        node = {"pythonClassName": f"{_CLASSES}image_feature.Image", "image": image}
    elif feature.kind == "text" or feature.dtype in ("str", "bytes"):
        if shape:
            tensor = {"shape": _shape(shape), "dtype": "string", "encoding": "none"}
            node = {"pythonClassName": f"{_CLASSES}tensor_feature.Tensor", "tensor": tensor}
        else:
            node = {"pythonClassName": f"{_CLASSES}text_feature.Text", "text": {}}
    else:
        if feature.dtype not in _ENCODINGS or None in shape[1:]:
            raise UserError(f"'{name}' of type {feature.dtype} and shape {shape} cannot be stored in RLDS records")
        tensor = {"shape": _shape(shape), "dtype": feature.dtype, "encoding": _ENCODINGS[feature.dtype]}
        kind = "tensor_feature.Tensor" if shape else "scalar.Scalar"
        if not shape and _ENCODINGS[feature.dtype] == "bytes":
            kind = "tensor_feature.Tensor"  # Scalar takes no encoding
        node = {"pythonClassName": f"{_CLASSES}{kind}", "tensor": tensor}
    about = feature.description or ", ".join(feature.names)
    return node | ({"description": about} if about else {})


_ENCODINGS = dict.fromkeys(
    ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float16", "float32"), "none"
) | {"float64": "bytes", "uint64": "bytes"}


def _shape(shape: tuple[int | None, ...]) -> dict[str, Any]:
    return {"dimensions": [str(-1 if size is None else size) for size in shape]} if shape else {}
