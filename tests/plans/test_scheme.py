"""Schemes: their text form round-trips, and an unknown scheme's error names the nearest."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitplan.plans.scheme import (
    ACTIVATION_BITS,
    EXAMPLES,
    KEEP,
    WEIGHT_BITS,
    ActivationFormat,
    Scheme,
    SchemeError,
    WeightFormat,
    parse_scheme,
)

WEIGHTS = [
    WeightFormat("int", bits, group, affine, least)
    for bits, group, affine, least in itertools.product(WEIGHT_BITS, (None, 32, 64, 128), (False, True), (False, True))
] + [WeightFormat("fp8", 8)]
ACTIVATIONS = [ActivationFormat(bits) for bits in ACTIVATION_BITS] + [
    ActivationFormat(bits, True, first) for bits in ACTIVATION_BITS if bits < 16 for first in (False, True)
]
SCHEMES = [Scheme(weight, activation) for weight in WEIGHTS for activation in ACTIVATIONS] + [KEEP]


def test_every_scheme_round_trips_and_has_a_text_of_its_own() -> None:
    assert all(parse_scheme(str(scheme)) == scheme for scheme in SCHEMES)
    assert len({str(scheme) for scheme in SCHEMES}) == len(SCHEMES)


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_are_schemes_in_their_own_words(text: str) -> None:
    assert str(parse_scheme(text)) == text


def test_meaning_of_the_parts() -> None:
    assert parse_scheme("w4g64zma8t+first") == Scheme(
        WeightFormat("int", 4, 64, affine=True, least_squares=True), ActivationFormat(8, static=True, first_token=True)
    )
    assert parse_scheme("fp8a16") == Scheme(WeightFormat("fp8", 8), ActivationFormat(16))


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
        ("w4a5", "activations have 16, 8, 6, 4 bits, not 5"),
        ("w4g48a8", "groups have 32, 64 or 128 inputs, not 48"),
        ("w4a16t", "`t` needs"),
        ("w8a8+first", "`\\+first` needs `t`"),
        ("w4mza8", "did you mean"),
        ("kep", "did you mean 'keep'"),
        ("w8a8\n", "names no scheme"),
        ("", "did you mean"),
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
