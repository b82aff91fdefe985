"""Files import in no circle, neither at their top nor in functions, and rooms stand on few floors."""

from __future__ import annotations

import grimp
import networkx
import pytest

TOPS = ("planner", "plans", "sensitivity", "solvers")
DEEPEST = 10  # rooms of one top folder, one above the other


@pytest.fixture(scope="module")
def imports() -> networkx.DiGraph:
    """Files of the package, with an edge from each to every file that it imports."""
    graph = grimp.build_graph("bitplan", cache_dir=None)
    edges = ((file, other) for file in graph.modules for other in graph.find_modules_directly_imported_by(file))
    return networkx.DiGraph(edges)


def test_files_import_in_no_circle(imports: networkx.DiGraph) -> None:
    assert len(imports) > 200
    assert not [sorted(files) for files in networkx.strongly_connected_components(imports) if len(files) > 1]


@pytest.mark.parametrize("top", TOPS)
def test_rooms_import_in_no_circle_and_are_few_floors(imports: networkx.DiGraph, top: str) -> None:
    pairs = (tuple(name.split(".")[:3] for name in edge) for edge in imports.edges)
    rooms = networkx.DiGraph(
        (".".join(a), ".".join(b)) for a, b in pairs if a != b and a[1:2] == b[1:2] == [top] and len(a) == len(b) == 3
    )
    assert rooms.number_of_edges() > 5
    assert networkx.is_directed_acyclic_graph(rooms)
    assert networkx.dag_longest_path_length(rooms) < DEEPEST
