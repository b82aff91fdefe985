from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitplan.planner.errors import UserError
from bitplan.planner.units import (
    beside_full,
    bits_to_bytes,
    parse_bytes,
    parse_milliseconds,
    show_bytes,
    show_milliseconds,
    time_cell,
)

WHOLE = 1_000_003


@pytest.mark.parametrize(
    ("text", "expected"),
    [("35%", 350_001), ("100%", WHOLE), ("0", 0), ("1234", 1234), ("1234 B", 1234), ("900MiB", 900 * 2**20),
     ("1.2GB", 1_200_000_000), (" 1.5 kib ", 1536), ("2KB", 2000), ("3mb", 3_000_000), (".5GiB", 2**29),
     ("1e3B", 1000), ("1024", 1024), ("2e3", 2000), ("20B", 20), ("2.5E-1 KiB", 256), ("150%", 1_500_004)],
)  # fmt: skip
def test_bytes(text: str, expected: int) -> None:
    assert parse_bytes(text, WHOLE) == expected


@pytest.mark.parametrize(
    ("text", "whole", "expected"),
    [("9007199254740993B", 1, 2**53 + 1), ("9223372036854775807", 1, 2**63 - 1), ("1.2GB", 1, 1_200_000_000),
     ("35%", 10**18 + 20, 35 * 10**16 + 7), ("100%", 2**63 - 1, 2**63 - 1), ("0." + "3" * 5000 + "KB", 1, 333),
     ("1e-999999999", 1, 0), ("4.35GB", 1, 4_350_000_000)],
)  # fmt: skip
def test_bytes_are_exact(text: str, whole: int, expected: int) -> None:
    assert parse_bytes(text, whole) == expected


@pytest.mark.parametrize("text", ["20", "12", " 12 ", "1", "1023", "1e3", "0.5e2"])
def test_a_small_amount_of_bytes_needs_its_unit(text: str) -> None:
    """Who writes 20 means a share or MB: no model has 20 bytes."""
    bare = text.strip()
    with pytest.raises(UserError, match=f"{bare}% or {bare}MB, or {bare}B for bytes"):
        parse_bytes(text, WHOLE)
    assert parse_bytes(f"{bare}B", WHOLE) == int(float(bare))


@pytest.mark.parametrize("text", ["80", " 12.5 ", "100"])
def test_a_small_amount_of_time_needs_its_unit(text: str) -> None:
    with pytest.raises(UserError, match=f"write {text.strip()}% or {text.strip()}ms"):
        parse_milliseconds(text, 991.0)
    assert parse_milliseconds(f"{text}ms", 991.0) == float(text)


def test_bits_are_taken_as_written() -> None:
    assert bits_to_bytes(4.1, 80) == 41 and bits_to_bytes(8, 2**60 + 1) == 2**60 + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("80%", 40.0), ("120", 120.0), ("0", 0.0), ("12ms", 12.0), ("80 ms", 80.0), ("1.5s", 1500.0), ("250us", 0.25)],
)
def test_milliseconds(text: str, expected: float) -> None:
    assert parse_milliseconds(text, 50.0) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", " ", "%", "MiB", "-1", "-5%", "1,5GB", "1 000", "5 %%", "1MiBs", "nan", "inf", "0x10", "1e", "1.",
             "٣MiB", "1e999", "9e307GiB"],
)  # fmt: skip
def test_no_amounts(text: str) -> None:
    for parse in (parse_bytes, parse_milliseconds):
        with pytest.raises(UserError, match="amount"):
            parse(text, WHOLE)


def test_each_kind_refuses_the_other_ones_units() -> None:
    with pytest.raises(UserError, match="MiB"):
        parse_bytes("80ms", WHOLE)
    with pytest.raises(UserError, match="ms"):
        parse_milliseconds("80MiB", WHOLE)


@given(st.integers(0, 10**15))
def test_bytes_read_back_what_is_shown_to_four_digits(count: int) -> None:
    assert parse_bytes(show_bytes(count), WHOLE) == pytest.approx(count, rel=1e-3, abs=1)


@given(st.floats(0, 1e9))
def test_milliseconds_read_back_what_is_shown_to_three_digits(value: float) -> None:
    assert parse_milliseconds(show_milliseconds(value), 1.0) == pytest.approx(value, rel=1e-2)


def test_a_time_stands_beside_full_precision_s() -> None:
    assert beside_full(6740.2, 991.4) == "6740 ms (full precision 991 ms, 6.8x)"
    assert beside_full(0.01234, 0.1) == "0.0123 ms (full precision 0.1 ms, 0.12x)"
    assert beside_full(12.0, None) == beside_full(12.0, 0.0) == "12 ms"
    assert time_cell(6740.2, 991.4) == "6740 (6.8x)" and time_cell(2e7, None) == "20000000"


@given(st.integers(1, 10**12), st.integers(1, 64))
def test_bits_of_all_weights_never_round_up(weights: int, bits: int) -> None:
    assert bits * weights - 8 < bits_to_bytes(bits, weights) * 8 <= bits * weights


@pytest.mark.parametrize("bits", [0.0, -1.0, float("nan"), float("inf"), 1e308])
def test_no_bits(bits: float) -> None:
    with pytest.raises(UserError, match="--bits"):
        bits_to_bytes(bits, 100)
