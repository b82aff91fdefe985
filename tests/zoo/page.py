"""Writes the table of all pipeline classes for the docs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tabulate import tabulate

from tests.zoo.animal import Animal
from tests.zoo.story import MEMORY, Story

UNREACHED = """The outputs of these layers do not reach the pipeline's output, such as text states of a
transformer's last block. They get no gradient, so they are measured by runs of the model; any scheme suits them.

"""
NEAR = 0.5  # largest difference that a plan may cause here, relative to the output's own spread

HEAD = f"""# Pipelines

BitPlan handles a pipeline by its modules, one traced run, and the signature of its call, never by names. This page
shows complete runs on pipeline classes of diffusers, each built small from configs with random weights and
unmodified classes of diffusers and transformers: traced, profiled by probes, solved to {MEMORY:.0%} of the memory,
applied with simulated and with real kernels, restored, saved and loaded. `python -m tests.zoo` writes this page
from such runs, and [`tests/zoo`](../tests/zoo) repeats them.

"""

FOOT = f"""
*planned*: the components that the run calls in a loop, which are planned by default. *modules that ran*: the called
Linear, Conv1d, Conv2d, Conv3d and Embedding modules of all components, and their total number. *found*: those of
them that can be planned. *planned layers*: those of the planned components. *probed*: the planned layers whose
losses come from probes; the others were measured by runs of the model. *bytes*: of the planned layers in full
precision, and the plan's share. *fake*, *int*: the output with the plan is finite and within {NEAR} of the output's
own spread, with simulated and with real kernels. *restored*: the output after `bitplan.restore` equals the original
one to the bit. *loaded*: the output of the pipeline that `save_pretrained` wrote with its plan and
`from_pretrained` loaded equals that with real kernels to the bit.
"""


def row_of(animal: Animal, story: Story) -> dict[str, str]:
    """Returns column -> cell. Only `bytes` may differ between machines."""
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
    """Returns the whole page from rows and stories by name."""
    table = tabulate([row.values() for row in rows.values()], list(next(iter(rows.values()))), "pipe")
    odd = Counter(
        (story.unplanned[layer], name) for name, story in stories.items() for layer in story.ran - story.layers
    )
    lines = [f"- {count} of `{name}`: {why}" for (why, name), count in odd.items()]
    unreached = [f"- {_losses_text(story.alone)} of `{name}`: {', '.join(f'`{layer}`' for layer in story.alone)}"
                 for name, story in stories.items() if story.alone]  # fmt: skip
    sections = [HEAD + table + "\n" + FOOT]
    if lines:
        sections.append("\n## Modules that ran and cannot be planned\n\n" + "\n".join(lines) + "\n")
    if unreached:
        sections.append("\n## Layers that no probe reaches\n\n" + UNREACHED + "\n".join(unreached) + "\n")
    return "".join(sections)


def _losses_text(alone: Mapping[str, float]) -> str:
    largest = max(alone.values())
    return f"{len(alone)}, with {f'losses of up to {largest:.1g}' if largest else 'no loss at all'},"


def rows_in(page: str) -> dict[str, dict[str, str]]:
    """Returns the rows of a page by pipeline, as `row_of` does."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:1] == "|"]
    return {cells[0].strip("`"): dict(zip(lines[0], cells, strict=True)) for cells in lines[2:]}
