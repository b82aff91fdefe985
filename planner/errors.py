"""Errors of the conductor, and which error means which exit code."""

from __future__ import annotations


class UserError(ValueError):
    """Something asked of BitPlan that it cannot do; the message says what, the numbers, and what to do."""


class InfeasibleError(UserError):
    """Budgets that no choice meets; the message says what could be reached."""


NO, BAD_INPUT, INFEASIBLE = 1, 2, 3  # exit codes; NO: of a question whose answer is not yes
