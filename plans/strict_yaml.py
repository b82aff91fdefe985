"""YAML that can hold data only, and each key once. Imports no torch."""

from __future__ import annotations

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
