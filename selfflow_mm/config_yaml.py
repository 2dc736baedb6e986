"""The YAML dialect of configurations: PyYAML's safe loader with YAML 1.2 scalars and no duplicate keys.

Source: YAML 1.2.2, section 10.3 (core schema); underscores in whole numbers (``1_000_000``) are kept from 1.1.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from .errors import UserError

_INT = re.compile(r"^[-+]?[0-9][0-9_]*$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
# In this order: the first pattern that matches decides, and whole numbers also look like floats.
_RESOLVERS = (
    ("tag:yaml.org,2002:null", _NULL, "~nN\0"),
    ("tag:yaml.org,2002:bool", _BOOL, "tTfF"),
    ("tag:yaml.org,2002:int", _INT, "-+0123456789"),
    ("tag:yaml.org,2002:float", _FLOAT, "-+.0123456789"),
)


class Loader(yaml.SafeLoader):
    """Safe YAML with 1.2 scalars; a key written twice raises."""

    yaml_implicit_resolvers: dict[Any, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                problem = f"the key '{key.value}' is there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    """Quotes whatever either YAML 1.1 or our loader would take for something other than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in _RESOLVERS:
    # PyYAML looks resolvers up by a scalar's first character; '' stands for the empty scalar.
    characters = ["" if c == "\0" else c for c in _first]
    Loader.add_implicit_resolver(_tag, _pattern, characters)
    Dumper.add_implicit_resolver(_tag, _pattern, characters)
Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value.replace("_", "")))
Loader.add_constructor(
    "tag:yaml.org,2002:float", lambda _, node: float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
)


def parse_yaml(text: str, where: str) -> Any:
    """One YAML document as plain values; ``where`` names the source in the error."""
    try:
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"{where}{place}: not valid YAML: {problem}") from error
