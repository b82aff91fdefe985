"""The table of what was done with each pipeline class, for the docs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tabulate import tabulate

from tests.zoo.animal import Animal
from tests.zoo.story import MEMORY, Story

UNREACHED = """Nothing that these put out reaches the pipeline's output, as where the last block of a transformer goes
on with texts that nobody reads. No gradient comes back to them, so they are measured by runs of the model: any scheme
will do for them.

"""
NEAR = 0.5  # of an output's own spread: what a plan may move it by here

HEAD = f"""# Pipelines

What is done with a pipeline follows from its modules, from one traced run, and from the signature of its call, never
from names. Here the whole story is told on pipeline classes of diffusers, each built small from configs with random
weights, of unmodified classes of diffusers and transformers: traced, profiled by probes, solved to {MEMORY:.0%} of the
memory, applied simulated and with real kernels, restored, saved and loaded. `python -m tests.zoo` writes this page from
such runs, and `tests/zoo` repeats them.

"""

FOOT = f"""
*planned*: the components that the trace found to be run in a loop, which is what is planned by default. *modules that
ran*: Linear, Conv1d, Conv2d, Conv3d and Embedding modules of all components that the run called, of those there are.
*found*: those of them that can be planned. *planned layers*: those of the planned components; *probed*: those whose
losses came from probes, the others were measured by runs of the model. *bytes*: of the planned layers, in full
precision and with the plan. *fake*, *int*: the output with the plan is finite and within {NEAR} of the output's own
spread, simulated and with real kernels. *restored*: the output after `bitplan.restore` is that of before, to the bit.
*loaded*: so is that of the pipeline that `save_pretrained` wrote with its plan and `from_pretrained` read.
"""


def row_of(animal: Animal, story: Story) -> dict[str, str]:
    """Column -> cell. What may differ from machine to machine is in `bytes` alone."""
    before, after = story.bytes
    return {
        "pipeline": f"`{animal.name}`",
        "family": animal.family,
        "planned": ", ".join(f"`{name}`" for name in story.iterating),
        "modules that ran": f"{len(story.ran)} of {len(story.present)}",
        "found": str(len(story.layers)),
        "planned layers": str(len(story.planned)),
        "probed": str(len(story.planned) - len(story.alone)),
        "bytes": f"{before:,.0f} to {after / before:.0%}",
        "fake": "near" if 0 < story.near("fake") < NEAR else "far",
        "int": "near" if 0 < story.near("int") < NEAR else "far",
        "restored": "same" if story.same("restored", "full") else "other",
        "loaded": "same" if story.same("loaded", "int") else "other",
    }


def page_of(rows: Mapping[str, Mapping[str, str]], stories: Mapping[str, Story]) -> str:
    """All of the page: rows and stories by name."""
    table = tabulate([row.values() for row in rows.values()], list(next(iter(rows.values()))), "pipe")
    odd = Counter(
        (story.unplanned[layer], name) for name, story in stories.items() for layer in story.ran - story.layers
    )
    lines = [f"- {count} of `{name}`: {why}" for (why, name), count in odd.items()]
    unreached = [f"- {_told(story.alone)} of `{name}`: {', '.join(f'`{layer}`' for layer in story.alone)}"
                 for name, story in stories.items() if story.alone]  # fmt: skip
    sections = [HEAD + table + "\n" + FOOT]
    if lines:
        sections.append("\n## Modules that ran and cannot be planned\n\n" + "\n".join(lines) + "\n")
    if unreached:
        sections.append("\n## Layers that no probe reaches\n\n" + UNREACHED + "\n".join(unreached) + "\n")
    return "".join(sections)


def _told(alone: Mapping[str, float]) -> str:
    largest = max(alone.values())
    return f"{len(alone)}, with {f'losses of up to {largest:.1g}' if largest else 'no loss at all'},"


def rows_in(page: str) -> dict[str, dict[str, str]]:
    """The rows of a page by their pipeline, as `row_of` gives them."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    return {cells[0].strip("`"): dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]}
