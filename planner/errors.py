"""Errors for users, and exit codes."""

from __future__ import annotations


class UserError(ValueError):
    """A request that BitPlan cannot fulfil. The message says what is wrong, the numbers, and what to do."""


class InfeasibleError(UserError):
    """Budgets that no choice meets. The message says what can be reached."""


NO, BAD_INPUT, INFEASIBLE = 1, 2, 3  # exit codes; NO: `check` does not confirm the profile
