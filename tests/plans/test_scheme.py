"""Schemes: their text form round-trips, and an unknown scheme's error names the nearest."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitplan.plans.scheme import (
    EXAMPLES,
    KEEP,
    WEIGHT_BITS,
    InputFormat,
    Scheme,
    SchemeError,
    Term,
    WeightFormat,
    every_scheme,
    parse_scheme,
)

WEIGHTS = [
    WeightFormat("int", bits, group, affine, least)
    for bits, group, affine, least in itertools.product(WEIGHT_BITS, (None, 32, 64, 128), (False, True), (False, True))
] + [WeightFormat("fp8", 8)]
INPUTS = [(InputFormat(), ())] + [
    (InputFormat("int", bits, bool(ranges)), terms)
    for bits in (8, 6, 4)
    for ranges, terms in ((0, ()), (1, ()), (2, (Term("first"),)))
]
SCHEMES = [Scheme(weight, inputs, terms) for weight in WEIGHTS for inputs, terms in INPUTS] + [KEEP]


def test_every_scheme_round_trips_and_has_a_text_of_its_own() -> None:
    assert all(parse_scheme(str(scheme)) == scheme for scheme in SCHEMES)
    assert len({str(scheme) for scheme in SCHEMES}) == len(SCHEMES)


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_are_schemes_in_their_own_words(text: str) -> None:
    assert str(parse_scheme(text)) == text


def test_meaning_of_the_parts() -> None:
    assert parse_scheme("w4g64zma8t+first") == Scheme(
        WeightFormat("int", 4, 64, affine=True, least_squares=True), InputFormat("int", 8, static=True),
        (Term("first"),),
    )  # fmt: skip
    assert parse_scheme("fp8a16") == Scheme(WeightFormat("fp8", 8), InputFormat())


def test_all_schemes_are_listed_once() -> None:
    assert sorted(map(str, every_scheme())) == sorted(map(str, SCHEMES))


def test_readers_of_one_input_share_its_format_and_its_transforms() -> None:
    assert parse_scheme("w4g64a8t+first").shared_side == "a8t+first" != parse_scheme("w8a8t").shared_side
    assert parse_scheme("w8a8").shared_side == parse_scheme("w2ma8").shared_side == "a8"


@given(st.text(alphabet="wafgzmt+irskep 0123456789", max_size=14) | st.text(max_size=8))
def test_any_text_is_a_scheme_or_refused_in_one_line(text: str) -> None:
    try:
        scheme = parse_scheme(text)
    except SchemeError as error:
        assert repr(text) in str(error) and "\n" not in str(error)
    else:
        assert scheme in SCHEMES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w7a8", "weights have 8, 6, 5, 4, 3, 2 bits, not 7"),
        ("w4a5", "inputs have 8, 6, 4 bits, or a16 without `t`, not a5"),
        ("w4g48a8", "groups have 32, 64 or 128 inputs, not 48"),
        ("w4a16t", "a16 without `t`, not a16"),
        ("w8a8+first", "`\\+first` needs `t`"),
        ("w8a8t+first+first", "is written 'w8a8t\\+first'"),
        ("keepa8", "did you mean"),
        ("w8a8+unknown", "names no scheme"),
        ("w4mza8", "did you mean"),
        ("kep", "did you mean 'keep'"),
        ("w8a8\n", "names no scheme"),
        ("", "names no scheme"),
    ],
)
def test_refused_with_advice(text: str, message: str) -> None:
    with pytest.raises(SchemeError, match=message):
        parse_scheme(text)


def test_schemes_and_plans_import_no_torch() -> None:
    code = (
        "import sys, plans.scheme, plans.plan\n"
        "bad = {'torch', 'solvers', 'sensitivity', 'planner'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
