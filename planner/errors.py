"""Errors for users, and exit codes."""

from __future__ import annotations


class UserError(ValueError):
    """A request that BitPlan cannot fulfil. The message says what is wrong, the numbers, and what to do."""


class InfeasibleError(UserError):
    """Budgets that no choice meets. The message says what can be reached."""


class CallError(UserError):
    """What code of the user's or of a pipeline raised while BitPlan called it."""


# Exit codes. NO: `check` does not confirm the profile. CRASHED: BitPlan did not foresee the error (EX_SOFTWARE of
# sysexits.h). UNREAD is what a shell states for SIGPIPE; `bitplan.planner.interrupts` has those of other signals.
NO, BAD_INPUT, INFEASIBLE, CRASHED, UNREAD = 1, 2, 3, 70, 141


def is_own(error: BaseException) -> bool:
    """Whether the error is of a class of BitPlan's, whose message is one line for users."""
    return isinstance(error, ValueError) and type(error).__module__.partition(".")[0] == "bitplan"
