"""Errors for users, and exit codes."""

from __future__ import annotations


class UserError(ValueError):
    """A request that BitPlan cannot fulfil. The message says what is wrong, the numbers, and what to do."""


class InfeasibleError(UserError):
    """Budgets that no choice meets. The message says what can be reached."""


class CallError(UserError):
    """What code of the user's or of a pipeline raised while BitPlan called it."""


class ShortageError(CallError):
    """Too little memory.

    Attributes:
        what: what ran out of it, with the number of conditions where it is a run.
        asked: how much more it asked for, with its unit; empty if that is not known.
        advice: how to need less; empty where only the verb knows.
    """

    def __init__(self, what: str, asked: str = "", advice: str = "") -> None:
        self.what, self.asked, self.advice = what, asked, advice
        more = f" when it asked for {asked} more" if asked else ""
        super().__init__(f"{what} ran out of memory{more}; {advice or 'ask for less'}")

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        """As a worker of another process sends it."""
        return type(self), (self.what, self.asked, self.advice)


# Exit codes. NO: `check` does not confirm the profile. CRASHED: BitPlan did not foresee the error (EX_SOFTWARE of
# sysexits.h). UNREAD is what a shell states for SIGPIPE; `bitplan.planner.interrupts` has those of other signals.
NO, BAD_INPUT, INFEASIBLE, CRASHED, UNREAD = 1, 2, 3, 70, 141


def is_own(error: BaseException) -> bool:
    """Whether the error is of a class of BitPlan's, whose message is one line for users."""
    return isinstance(error, ValueError) and type(error).__module__.partition(".")[0] == "bitplan"
