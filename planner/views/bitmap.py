"""Draws the bits of a plan as a map in the terminal: one row a role, one column a block, a coloured character a layer.

rich handles the terminal's width and colours and the variable NO_COLOR. The characters alone carry the information. The
colours are viridis, which is readable without distinguishing red from green.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console, ConsoleOptions
from rich.style import Style
from rich.text import Text

from bitplan.planner.graph.layers import LayerGraph, blocks_of
from bitplan.planner.views.roles import by_role
from bitplan.plans.formats import FORMATS
from bitplan.plans.plan import Plan
from bitplan.plans.scheme import KEEP, parse_scheme

FULL = "·"  # full precision, in no colour


# viridis from its dark to its bright end, with the colour of characters on it, at a contrast of 4.5 or more
_VIRIDIS = (("#440154", "#ffffff"), ("#414487", "#ffffff"), ("#2a788e", "#ffffff"), ("#22a884", "#000000"),
            ("#7ad151", "#000000"), ("#fde725", "#000000"))  # fmt: skip


def _colours() -> dict[str, tuple[str, str]]:
    """Bits of each weight format, most bits first -> background, darker for more bits, and character."""
    lines = [line for line in FORMATS.values() if line.name != KEEP.weight.kind]
    bits = sorted({value for line in lines for value in line.choices("bits")}, reverse=True)
    step = (len(_VIRIDIS) - 1) / max(len(bits) - 1, 1)
    return {str(value): _VIRIDIS[round(place * step)] for place, value in enumerate(bits)}


COLOURS = _colours()


ALL = "all layers"  # the only row of a model without roles
_ASCII = str.maketrans("·×", "Fx")  # for terminals without Unicode
_LEAST = 4  # minimum width of the map in characters


@dataclass(frozen=True)
class Bitmap:
    """A map of bits that rich can print.

    Attributes:
        rows: role -> block -> one character for each layer in order of execution.
        blocks: the blocks in order of execution.
    """

    rows: Mapping[str, Mapping[str, str]]
    blocks: tuple[str, ...]

    def width(self, block: str) -> int:
        """Returns the width of a block: the largest number of its layers in one role."""
        return max(len(cells.get(block, "")) for cells in self.rows.values())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for text in self._texts(options):
            if options.ascii_only:
                text.plain = text.plain.translate(_ASCII)
            yield text

    def _texts(self, options: ConsoleOptions) -> Iterator[Text]:
        label = max(map(len, self.rows)) + 2
        room = max(options.max_width - label, _LEAST)
        for panel in _panels([(number, self.width(block)) for number, block in enumerate(self.blocks, 1)], room):
            heads = " ".join(piece.head.ljust(piece.width) for piece in panel)
            yield Text(" " * label + heads.rstrip(), "bold", no_wrap=True)
            yield from self._lines(panel, label)
        yield _key(self.rows)
        yield Text(", ".join(_names(self.blocks)), "dim")

    def _lines(self, panel: Sequence[_Piece], label: int) -> Iterator[Text]:
        for role, cells in self.rows.items():
            line = Text(role.ljust(label), no_wrap=True)
            for piece in panel:
                part = cells.get(self.blocks[piece.number - 1], "")[piece.start : piece.stop]
                line.append_text(_painted(part)).append(" " * (piece.width - len(part) + 1))
            if len(line.plain.rstrip()) > len(role):  # the role has layers in these blocks
                line.rstrip()
                yield line


def bitmap_of(plan: Plan, graph: LayerGraph | None = None) -> Bitmap:
    """Returns the map of a plan. graph: the profile's, with roles; without roles the map has one row."""
    names = list(plan.schemes) if graph is None else [a for a in graph.by_address if a in plan.schemes]
    roles = {} if graph is None else {role: [layer.address for layer in some] for role, some in by_role(graph).items()}
    with_role = {layer for some in roles.values() for layer in some}
    rest = [layer for layer in names if layer not in with_role]
    if rest:
        roles["other" if roles else ALL] = [*roles.get("other", ()), *rest]
    block_of = {layer: block for block, layers in blocks_of(names).items() for layer in layers}
    rows: dict[str, dict[str, str]] = {}
    for role, layers in roles.items():
        cells: dict[str, str] = {}
        for layer in layers:
            cells[block_of[layer]] = cells.get(block_of[layer], "") + _character(plan.schemes[layer])
        rows[role] = cells
    return Bitmap(rows, tuple(dict.fromkeys(block_of.values())))


def _character(text: str) -> str:
    scheme = parse_scheme(text)
    return FULL if scheme == KEEP else str(scheme.weight.bits)


@dataclass(frozen=True)
class _Piece:
    """A range of columns of one block.

    Attributes:
        number: the block's number, from 1.
        start: the first column.
        stop: the column after the last.
    """

    number: int
    start: int
    stop: int

    @property
    def head(self) -> str:
        """The text above the columns."""
        return str(self.number)

    @property
    def width(self) -> int:
        return max(self.stop - self.start, len(self.head))


def _panels(blocks: Sequence[tuple[int, int]], room: int) -> Iterator[list[_Piece]]:
    """Splits blocks, each (number, columns), into lines of at most `room` characters; longer blocks are wrapped."""
    panel: list[_Piece] = []
    left = room
    for number, columns in blocks:
        start = 0
        while start < columns:
            whole = _Piece(number, start, columns)
            if panel and whole.width > left and whole.width <= room or left < len(whole.head):
                yield panel
                panel, left = [], room
            piece = _Piece(number, start, min(columns, start + max(left, 1)))
            panel.append(piece)
            left -= piece.width + 1
            start = piece.stop
    if panel:
        yield panel


def _painted(characters: str) -> Text:
    text = Text()
    for character, run in groupby(characters):
        text.append("".join(run), _style(character))
    return text


def _style(character: str) -> Style:
    if character not in COLOURS:
        return Style()
    back, front = COLOURS[character]
    return Style(color=front, bgcolor=back)


def _key(rows: Mapping[str, Mapping[str, str]]) -> Text:
    """Returns the legend with the number of layers at each number of bits."""
    counts = Counter("".join(part for cells in rows.values() for part in cells.values()))
    text = Text("bits × layers:")
    for character, count in sorted(counts.items(), key=lambda item: (item[0] == FULL, item[0])):
        text.append("  ").append(character, _style(character)).append(f"×{count}")
    return text.append(" (full precision)" * (FULL in counts))


def _names(blocks: Sequence[str]) -> Iterator[str]:
    """Yields the blocks' numbers and names; merges consecutive numbered blocks and omits a single component."""
    single = len({block.partition(".")[0] for block in blocks}) == 1
    shown = [block.partition(".")[2] or block if single else block for block in blocks]
    stems = [name.rpartition(".")[0] if name.rpartition(".")[2].isdigit() else "" for name in shown]
    start = 0
    while start < len(shown):
        stop = start + 1
        while stop < len(shown) and stems[start] and stems[stop] == stems[start]:
            stop += 1
        last = shown[stop - 1].rpartition(".")[2]
        yield f"{start + 1}-{stop}={shown[start]}-{last}" if stop - start > 1 else f"{start + 1}={shown[start]}"
        start = stop
