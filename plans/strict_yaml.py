"""YAML that can hold data only, and each key once. Imports no torch."""

from __future__ import annotations

import re
from typing import Any

import yaml


class StrictLoader(yaml.SafeLoader):
    """YAML without objects, without aliases, and without a key given twice."""

    def get_single_data(self) -> Any:
        """The data of the only document. Raises yaml.YAMLError, also where PyYAML fails in other ways on bad values."""
        try:
            return super().get_single_data()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise yaml.YAMLError(f"a value cannot be read ({type(error).__name__}: {error})") from None

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        twice = (
            next((key for i, key in enumerate(keys) if key in keys[:i]), None) if len(set(keys)) < len(keys) else None
        )
        if twice is not None:
            raise yaml.MarkedYAMLError(problem=f"key {twice!r} is given twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)  # type: ignore[no-untyped-call,no-any-return]


class PlainLoader(StrictLoader):
    """YAML that people write by hand: null, true, false and decimal numbers are values, and every other word is a text.

    YAML 1.1, which `StrictLoader` reads, takes `no` for false, `16:9` for 969 and `010` for 8.
    """


_TAG = "tag:yaml.org,2002:"
PlainLoader.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in (
    ("null", r"null|~|", ["n", "~", ""]),
    ("bool", r"[Tt]rue|[Ff]alse|TRUE|FALSE", list("tTfF")),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[1-9][0-9]*(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
     list("-+.0123456789")),
):  # fmt: skip
    PlainLoader.add_implicit_resolver(_TAG + _kind, re.compile(f"(?:{_pattern})$"), _first)  # type: ignore[no-untyped-call]
