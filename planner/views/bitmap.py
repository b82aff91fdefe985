"""The bits of a plan as a map in the terminal: a row a role, a column a block, a coloured character a layer.

Drawn by rich, which knows how many colours a terminal has, how wide it is, and that NO_COLOR asks for none. Without
colour the characters alone tell the same. The colours are viridis, which is told apart without red and green.
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
from bitplan.plans.plan import Plan
from bitplan.plans.scheme import KEEP, parse_scheme

FULL = "·"  # full precision, in no colour


# bits of weights -> the colour behind them, from viridis and, as on the page, darker for more of them, and that of the
# character, at a contrast of 4.5 or more
COLOURS = {
    "2": ("#fde725", "#000000"), "3": ("#7ad151", "#000000"), "4": ("#22a884", "#000000"),
    "5": ("#2a788e", "#ffffff"), "6": ("#414487", "#ffffff"), "8": ("#440154", "#ffffff"),
}  # fmt: skip


ALL = "all layers"  # the one row where no roles are told
_ASCII = str.maketrans("·×", "Fx")  # for terminals that have no more
_LEAST = 4  # characters of a map, however narrow the terminal


@dataclass(frozen=True)
class Bitmap:
    """rows: role -> block -> the character of each of its layers, in order of execution; blocks: in that order, too.
    To be printed by rich."""

    rows: Mapping[str, Mapping[str, str]]
    blocks: tuple[str, ...]

    def width(self, block: str) -> int:
        """Columns of one block: its layers in the role that has most there."""
        return max(len(cells.get(block, "")) for cells in self.rows.values())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for text in self._texts(options):
            if options.ascii_only:
                text.plain = text.plain.translate(_ASCII)
            yield text

    def _texts(self, options: ConsoleOptions) -> Iterator[Text]:
        label = max(map(len, self.rows)) + 2
        room = max(options.max_width - label, _LEAST)
        for panel in _panels([(place + 1, self.width(block)) for place, block in enumerate(self.blocks)], room):
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
            if len(line.plain.rstrip()) > len(role):  # nothing of the role is in these blocks
                line.rstrip()
                yield line


def bitmap_of(plan: Plan, graph: LayerGraph | None = None) -> Bitmap:
    """The map of a plan. graph: of its profile, which tells roles; without, or without roles there, it has one row."""
    names = list(plan.schemes) if graph is None else [a for a in graph.by_address if a in plan.schemes]
    roles = {} if graph is None else {role: [layer.address for layer in some] for role, some in by_role(graph).items()}
    told = {layer for some in roles.values() for layer in some}
    rest = [layer for layer in names if layer not in told]
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
    """The columns of a block from `start` to before `stop`, as wide as they and the head need."""

    number: int
    start: int
    stop: int

    @property
    def head(self) -> str:
        """The block's number, where the block begins and where it goes on."""
        return str(self.number)

    @property
    def width(self) -> int:
        return max(self.stop - self.start, len(self.head))


def _panels(blocks: Sequence[tuple[int, int]], room: int) -> Iterator[list[_Piece]]:
    """Blocks, each (number, columns), in lines of at most `room` characters; one that is longer than a line goes on in
    the next."""
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
    """How many layers have how many bits."""
    counts = Counter("".join(part for cells in rows.values() for part in cells.values()))
    text = Text("bits × layers:")
    for character, count in sorted(counts.items(), key=lambda item: (item[0] == FULL, item[0])):
        text.append("  ").append(character, _style(character)).append(f"×{count}")
    return text.append(" (full precision)" * (FULL in counts))


def _names(blocks: Sequence[str]) -> Iterator[str]:
    """What the numbers stand for; numbered blocks in a row are told together, and a component that is the only one is
    left out."""
    single = len({block.partition(".")[0] for block in blocks}) == 1
    shown = [block.partition(".")[2] or block if single else block for block in blocks]
    stems = [name.rpartition(".")[0] if name.rpartition(".")[2].isdigit() else "" for name in shown]
    place = 0
    while place < len(shown):
        stop = place + 1
        while stop < len(shown) and stems[place] and stems[stop] == stems[place]:
            stop += 1
        last = shown[stop - 1].rpartition(".")[2]
        yield f"{place + 1}-{stop}={shown[place]}-{last}" if stop - place > 1 else f"{place + 1}={shown[place]}"
        place = stop
