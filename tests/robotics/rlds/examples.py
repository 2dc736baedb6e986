"""A tf.train.Example of Google's protobuf runtime, built from a description here: independent truth for the wire."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def example_class() -> Any:
    """The message class; its schema is that of tensorflow/core/example/{example,feature}.proto."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="example_for_tests.proto", package="t", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def message(name: str) -> Any:
        return file.message_type.add(name=name)

    def field(owner: Any, name: str, number: int, kind: int, of: str = "", many: bool = False) -> Any:
        label = kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
        return owner.field.add(name=name, number=number, type=kind, label=label, type_name=of or None)

    field(message("BytesList"), "value", 1, kinds.TYPE_BYTES, many=True)
    field(message("FloatList"), "value", 1, kinds.TYPE_FLOAT, many=True).options.packed = True
    field(message("Int64List"), "value", 1, kinds.TYPE_INT64, many=True).options.packed = True
    feature = message("Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("Bytes", "Float", "Int64"), 1):
        field(feature, f"{name.lower()}_list", number, kinds.TYPE_MESSAGE, f".t.{name}List").oneof_index = 0
    features = message("Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, kinds.TYPE_STRING)
    field(entry, "value", 2, kinds.TYPE_MESSAGE, ".t.Feature")
    field(features, "feature", 1, kinds.TYPE_MESSAGE, ".t.Features.FeatureEntry", many=True)
    field(message("Example"), "features", 1, kinds.TYPE_MESSAGE, ".t.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


def build(features: dict[str, tuple[str, list[Any]] | None]) -> bytes:
    """Serialised by protobuf, names sorted: name -> ("bytes" | "float" | "int64", values)."""
    example = example_class()()
    for name, given in features.items():
        feature = example.features.feature[name]
        if given is not None:
            part = getattr(feature, f"{given[0]}_list")
            part.SetInParent()
            part.value.extend(given[1])
    return example.SerializeToString(deterministic=True)
