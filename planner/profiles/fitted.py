"""The fitted parameters in a profile: one row of the table `parameters` for each owner and transform. Imports no torch.

The owner is a layer, or the first layer of a group that reads one input. In version 2 of the
format there is no such table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bitplan.planner.profiles.file import ProfileError
from bitplan.planner.profiles.profile import Profile
from bitplan.planner.profiles.tables import add_parameters, has_parameters

if TYPE_CHECKING:
    from bitplan.plans.parameters import Arrays, Key


def write_parameters(store: Profile, parameters: Mapping[Key, Arrays]) -> None:
    """Keep fitted parameters, all in one transaction; replaces those of the same owner and transform.

    Raises ProfileError.
    """
    from bitplan.plans.parameters import encoded

    if not parameters:
        return
    rows = [(*key, encoded({key: arrays})) for key, arrays in parameters.items()]
    with store._transaction() as db:
        add_parameters(db)
        db.executemany("REPLACE INTO parameters VALUES (?, ?, ?)", rows)


def read_parameters(store: Profile) -> dict[Key, Arrays]:
    """Returns the fitted parameters, in graph order. Raises ProfileError."""
    from bitplan.plans.parameters import ParameterError, decoded

    if not has_parameters(store._db):
        return {}
    parameters: dict[Key, Arrays] = {}
    query = "SELECT owner, term, tensors FROM parameters JOIN layers ON address = owner ORDER BY position, term"
    for owner, term, tensors in store._rows(query):
        try:
            held = decoded(tensors)
        except ParameterError as error:
            raise ProfileError(f"{store.path}: {error}; restore a copy, or profile again with another --out") from None
        if set(held) != {(owner, term)}:
            raise ProfileError(f"{store.path}: the row {owner} / {term} of parameters holds others; restore a "
                               "copy, or profile again with another --out")  # fmt: skip
        parameters |= held
    return parameters
