"""What the rows of a profile may hold, as SQL that finds a row that breaks a rule. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bitplan.planner.units import COSTS
from bitplan.plans.checks import LINE, WHOLE, matching, one_of, record, whole
from bitplan.sensitivity.metrics import METRICS
from bitplan.sensitivity.table import FAMILIES, OWN, SOURCES

# words of objectives and of `--by`, which no metric is named
RESERVED = (*COSTS, *FAMILIES, OWN, "both", "lexicographic", "memory", "latency", "bits")
LARGEST_LOSS = 1e100  # far beyond any loss, and sums of it are finite
LARGEST_MS = 1e12  # 30 years
ROUNDING = 1e-6  # by so much a loss of an unsigned metric may be below 0
MOST_TEXT = 64 * 2**20  # characters of one JSON value


@dataclass(frozen=True)
class Rule:
    """What one column of a row must meet.

    Attributes:
        column: its name.
        holds: the condition, in SQL.
        needs: what is required, in words.
        repeats: whether few different values are in many rows, so that each is checked once.
    """

    column: str
    holds: str
    needs: str
    repeats: bool = False


def _texts(*values: str) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def _text(column: str, most: int = LINE) -> Rule:
    return Rule(
        column, f"typeof({column}) = 'text' AND length({column}) BETWEEN 1 AND {most}", f"1 to {most} characters"
    )


def _whole(column: str, low: int, high: int) -> Rule:
    return Rule(
        column, f"typeof({column}) = 'integer' AND {column} BETWEEN {low} AND {high}",
        f"an integer from {low} to {high}",
    )  # fmt: skip


def _value(column: str = "value") -> Rule:
    return Rule(column, f"typeof({column}) = 'text' AND length({column}) <= {MOST_TEXT}", "JSON text")


_LAYER = Rule("layer", "layer IN (SELECT address FROM layers)", "an address of the table layers", repeats=True)
_OWNER = Rule("owner", "owner IN (SELECT address FROM layers)", "an address of the table layers", repeats=True)
_SCHEME = Rule("scheme", "scheme IN (SELECT name FROM schemes)", "a name of the table schemes", repeats=True)
_UNSIGNED = tuple(metric.name for metric in METRICS.values() if not metric.signed)


# table -> the columns that name a row in errors, and its rules; those of columns of newer formats hold without them
RULES: Mapping[str, tuple[tuple[str, ...], tuple[Rule, ...]]] = {
    "header": (("key",), (_text("key"), _value())),
    "layers": (("address",), (_whole("position", 0, WHOLE), _text("address"), _value("facts"))),
    "graph": (("key",), (_text("key"), _value())),
    "schemes": (("name",), (_whole("position", 0, WHOLE), _text("name"))),
    "baseline": (("key",), (_text("key"), _value())),
    "ranges": (("layer",), (_LAYER, _value())),
    "costs": (
        ("layer", "scheme"),
        (
            _LAYER, _SCHEME, _whole("bytes", 0, WHOLE),
            Rule("ms", f"ms IS NULL OR (typeof(ms) = 'real' AND ms BETWEEN 0 AND {LARGEST_MS!r})",
                 f"a number from 0 to {LARGEST_MS:g}, or NULL"),
            Rule("kernel", "typeof(kernel) = 'text' AND length(kernel) <= 200", "at most 200 characters"),
            _whole("simulated", 0, 1),
            Rule("error", f"error IS NULL OR (typeof(error) = 'real' AND error BETWEEN 0 AND {LARGEST_MS!r})",
                 f"a number from 0 to {LARGEST_MS:g}, or NULL"),
        ),
    ),
    "measurements": (
        ("layer", "scheme", "metric"),
        (
            _LAYER, _SCHEME,
            Rule("mean", f"typeof(mean) = 'real' AND abs(mean) <= {LARGEST_LOSS!r}",
                 f"a number of magnitude up to {LARGEST_LOSS:g}"),
            Rule("mean", f"mean >= {-ROUNDING!r} OR metric NOT IN ({_texts(*_UNSIGNED)})",
                 "at least 0, for the metric is not signed"),
            Rule("stderr", f"typeof(stderr) = 'real' AND (stderr BETWEEN 0 AND {LARGEST_LOSS!r} OR stderr = 9e999)",
                 f"a number from 0 to {LARGEST_LOSS:g}, or infinity for too few samples"),
            _whole("finite", 0, 1),
        ),
    ),
    "responses": (
        ("layer", "scheme", "metric"),
        (
            _LAYER, _SCHEME, _whole("probes", 1, 100_000),
            Rule("sums", "typeof(sums) = 'blob' AND length(sums) % (4 * probes) = 0", "4 bytes a probe and sample"),
        ),
    ),
    "parameters": (
        ("owner", "term"),
        (_OWNER, _text("term", 200), Rule("tensors", "typeof(tensors) = 'blob'", "bytes of a safetensors file")),
    ),
}  # fmt: skip


# What losses have in common: few rows, from one pass over the table. The error depends on the samples alone.
LOSSES = "SELECT DISTINCT metric, family, source, count, stderr = 9e999 FROM measurements ORDER BY 1, 2, 3, 4"
LOSS = record(
    {
        "metric": matching(r"[A-Za-z_][\w.-]{0,199}", "a metric's name of letters, digits, '_', '-' and '.'"),
        "family": one_of((*FAMILIES, OWN)), "source": one_of(SOURCES), "count": whole(1),
    },
)  # fmt: skip


# Layers without a cost in full precision, where each layer has costs and everything with a cost was measured.
UNKEPT = """
SELECT address FROM layers
WHERE (SELECT count(DISTINCT layer) FROM costs) = (SELECT count(*) FROM layers)
AND NOT EXISTS (SELECT 1 FROM costs AS own WHERE own.layer = address AND own.scheme = 'keep')
AND NOT EXISTS (SELECT 1 FROM costs AS each WHERE each.scheme <> 'keep' AND NOT EXISTS (
    SELECT 1 FROM measurements AS m WHERE m.layer = each.layer AND m.scheme = each.scheme)) LIMIT 1
"""
