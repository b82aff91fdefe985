"""A toy member of each family, added by its recipe in CONTRIBUTING.md: one file of code and one line of a table.

`toy_files.py` holds the files. A function of `TOYS` adds the line and returns a `Toy`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Toy:
    """What knows a member that was added.

    Attributes:
        doctor: (part, name) of its row in `bitplan doctor`; None for a family without rows.
        option: (verb, word, value) of the command line that offers it; None where no option names such members.
        contract: runs contract tests of the family with it.
    """

    doctor: tuple[str, str] | None
    option: tuple[str, str, str] | None
    contract: Callable[[], None]


def add(patch: pytest.MonkeyPatch, table: Any, line: Any) -> None:
    """Add a line to a table without a function for registering: at the end of it, wherever it was imported."""
    if isinstance(table, dict):
        patch.setitem(table, line.name, line)
        return
    longer = (*table, line)
    for module in [*sys.modules.values()]:
        for name in [name for name, value in vars(module).items() if value is table]:
            patch.setattr(module, name, longer)


def toy_format(patch: pytest.MonkeyPatch) -> Toy:
    from bitplan.plans import formats
    from bitplan.plans.terms import Line
    from tests.contracts import test_formats

    formats.register(Line("toy", "a toy", "toy_format:TOY", word="toy", examples=("toya16",)))
    fmt = formats.WeightFormat("toy")

    def contract() -> None:
        test_formats.test_bytes_from_the_shape_are_the_bytes_held(fmt)
        test_formats.test_rows_agree_with_the_whole_and_shapes_return(fmt)
        test_formats.test_rounding_to_the_grid_is_packing_and_back(fmt, patch)
        test_formats.test_zeros_stay_exact(fmt)
        test_formats.test_bad_weights_are_refused_with_a_count(fmt)
        test_formats.test_the_same_weight_gives_the_same_bytes_and_is_not_changed(fmt)
        test_formats.test_formats_without_integers_say_so(fmt)

    return Toy(("format", "toy"), ("profile", "schemes", "toya16"), contract)


def toy_inputs(patch: pytest.MonkeyPatch) -> Toy:
    import torch

    from bitplan.plans import inputs
    from bitplan.plans.terms import Line
    from tests.contracts import test_inputs

    inputs.register(Line("toy", "a toy", "toy_inputs:TOY", word="toy", fixed=(("bits", 8),), examples=("w8toy",)))
    fmt = inputs.InputFormat("toy", 8)

    def contract() -> None:
        test_inputs.test_shape_and_type_stay_and_the_input_is_not_changed(fmt, torch.float32)
        test_inputs.test_zeros_stay_exact(fmt)
        test_inputs.test_the_error_is_at_most_half_a_step_of_so_many_bits(fmt)

    return Toy(("input", "toy"), ("profile", "schemes", "w8toy"), contract)


def toy_transform(patch: pytest.MonkeyPatch) -> Toy:
    from bitplan.plans import transforms
    from bitplan.plans.transforms import Term, TransformLine
    from tests.contracts import test_transforms

    line = TransformLine("toy", "a toy", "toy_transform:TOY", word="toy", scope="inputs", examples=("w8a8+toy",))
    transforms.register(line)

    def contract() -> None:
        test_transforms.test_the_product_stays_the_same_in_full_precision(Term("toy"))
        test_transforms.test_fitted_tensors_have_their_layout(Term("toy"))
        test_transforms.test_the_text_names_the_line(Term("toy"))

    return Toy(("transform", "toy"), ("profile", "schemes", "w8a8+toy"), contract)


def toy_kernel(patch: pytest.MonkeyPatch) -> Toy:
    from toy_kernel import TOY

    from bitplan.plans import kernels
    from bitplan.plans.scheme import parse_scheme
    from tests.contracts import test_kernels

    kernels.register(TOY, before="cpu_int8")

    def contract() -> None:
        scheme = parse_scheme("w4g64a16")
        test_kernels.test_a_real_kernel_equals_the_reference_within_its_bound(TOY, scheme, None, patch)
        test_kernels.test_real_kernels_decline_what_they_cannot_run(TOY)
        assert kernels.choose_kernel(parse_scheme("w4a16"), "linear") is TOY

    return Toy(("kernel", "toy"), None, contract)


def toy_metric(patch: pytest.MonkeyPatch) -> Toy:
    import torch
    from toy_metric import square

    from bitplan.sensitivity.metrics import METRICS, Metric
    from bitplan.sensitivity.runs.outcome import Outcome
    from tests.contracts import test_metrics

    toy = METRICS.register(Metric("toy", "quality", "output", "a toy", square, symmetric=True))
    full: Any = Outcome((torch.randn(6, 4, 8, 8),), torch.rand(6, 3, 32, 32))
    encoder: Any = None

    def contract() -> None:
        test_metrics.FULL[:] = [full.outputs]
        patch.setattr(test_metrics, "reading", lambda metric, encoder, outcome, rows=slice(None): outcome.outputs[rows])
        for test in (test_metrics.test_zero_for_identical, test_metrics.test_one_float64_loss_a_sample,
                     test_metrics.test_grows_with_noise_on_average, test_metrics.test_symmetry,
                     test_metrics.test_samples_are_independent_of_their_batch):  # fmt: skip
            test(toy, encoder, full)
        test_metrics.test_is_filed(toy)

    return Toy(("metric", "quality: toy"), ("profile", "metrics", "toy"), contract)


def toy_method(patch: pytest.MonkeyPatch) -> Toy:
    from bitplan.planner.measurement.methods import METHODS, Method
    from tests.planner.measurement import test_engines

    add(patch, METHODS, Method("toy", "toy_method", "a toy"))
    worker: Any = None

    def contract() -> None:
        known = {("unet.to_q", "w8a8"): [], ("unet.to_q", "w4a8"): [], ("unet.to_k", "w8a8"): []}
        test_engines.test_every_method_finds_every_pair_once_and_in_order(worker, known, "toy")

    return Toy(("method", "toy"), ("profile", "method", "toy"), contract)


def toy_engine(patch: pytest.MonkeyPatch) -> Toy:
    from bitplan.planner.measurement.engines import ENGINES, Cluster, Engine, engine_named
    from bitplan.planner.measurement.jobs import jobs_of
    from bitplan.planner.measurement.methods import METHODS, Method

    add(patch, METHODS, Method("toy", "toy_method", "a toy"))
    add(patch, ENGINES, Engine("toy", "toy_engine", False, "a toy"))
    worker: Any = None
    setup: Any = None

    def contract() -> None:
        pairs = [(f"unet.{number}", scheme) for number in range(5) for scheme in ("w8a8", "w4a8")]
        jobs = jobs_of("toy", pairs, 2)
        results = engine_named("toy", Cluster()).run(setup, jobs, lambda: worker, Cluster())
        assert sorted(result.pair for result in results) == sorted(pairs)  # each once, in any order

    return Toy(("engine", "toy"), ("profile", "engine", "toy"), contract)


def toy_strategy(patch: pytest.MonkeyPatch) -> Toy:
    from toy_strategy import TOY

    from bitplan.solvers.strategies import STRATEGIES, strategy_named
    from tests.solvers.strategies import test_strategies

    add(patch, STRATEGIES, TOY)

    def contract() -> None:
        assert strategy_named("toy") is TOY
        test_strategies.test_a_choice_is_found_where_there_is_room(TOY)
        test_strategies.test_one_unit_too_few_is_infeasible_and_no_unit_too_many_is_not(TOY)

    return Toy(("solver", "toy"), ("solve", "solver", "toy"), contract)


def toy_backend(patch: pytest.MonkeyPatch) -> Toy:
    from bitplan.solvers.effort import Effort
    from bitplan.solvers.problem import Budget, Problem
    from bitplan.solvers.programs.backends import BACKENDS, Backend
    from bitplan.solvers.strategies import strategy_named
    from tests.solvers import test_solve

    add(patch, BACKENDS, Backend("toy", "toy_backend", "a toy"))
    columns = {"bytes": [8, 4, 2, 8, 4, 2], "loss": [0, 1, 5, 0, 2, 3]}
    problem = Problem(("a", "b"), (("w8", "w4", "w2"),) * 2, columns, {"loss": 1.0}, (Budget("bytes", 10),))

    def contract() -> None:
        test_solve.check_against_brute_force(problem, "toy")
        program = strategy_named("ilp").run(problem, Effort(backend="toy"))  # the whole problem, by the backend alone
        assert program.objective == 3 and program.backend == "toy"

    return Toy(("backend", "toy"), ("solve", "backend", "toy"), contract)


def toy_target(patch: pytest.MonkeyPatch) -> Toy:
    from toy_target import TOY

    from bitplan.planner import targets
    from tests.planner.interop import test_targets

    targets.register(TOY)

    def contract() -> None:
        for name in test_targets.LAYERS:
            test_targets.test_the_nearest_can_be_expressed_and_is_the_nearest(TOY, name)
        test_targets.test_reasons_are_one_line_and_no_tool_has_a_first_token(TOY)
        test_targets.test_layers_that_have_no_one_name_inside_stay_as_they_are(TOY)

    return Toy(("target", "toy"), ("export", "to", "toy"), contract)


TOYS = {
    "Add a weight format": toy_format, "Add an input format": toy_inputs, "Add a transform": toy_transform,
    "Add a kernel": toy_kernel, "Add a metric": toy_metric, "Add a method of measuring": toy_method,
    "Add an engine": toy_engine, "Add a way to solve": toy_strategy, "Add a solver backend": toy_backend,
    "Add an export target": toy_target,
}  # fmt: skip
