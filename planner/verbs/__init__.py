"""The story on one page: each verb reads files and writes files, and is a function and a command.

pipeline -> layer graph -> calibration -> costs and sensitivities -> X.profile         profile
X.profile + budgets -> problem -> solution -> P.plan.yaml                              solve
X.profile + limits of one column -> plans, and their pictures -> RUN                   sweep
RUNs -> one page that shows their plans, pictures and layers                           report
X.profile + a browser -> plans solved as budgets are dragged, saved, painted           explore
P.plan.yaml + X.profile -> is it right, why is it so, what does it do as a whole       verify, why, predict
P.plan.yaml + pipeline -> swapped layers, fake or real kernels -> images               apply, restore, config
P.plan.yaml + pipeline + held-out prompts -> predicted beside measured                 evaluate
X.profile + a fine-tune -> does the old ranking still hold                             check
P.plan.yaml + pipeline -> milliseconds of a denoiser call                              bench
P.plan.yaml + the model's shapes -> another tool's configuration                       export
a configuration -> layers, multiply-adds, bytes; X.profile of elsewhere -> costs here  inspect, cost
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from bitplan.planner.verbs.entry import entered


@dataclass(frozen=True)
class Verb:
    """One verb. The parameters of its function are the options of its command: `bitplan.planner.verbs.parameters`.

    Attributes:
        name: the function's name in Python.
        file: the module in this package that holds the function; it is imported when the verb is needed.
        help: the help of its command.
        command: the command's name; empty for a verb of Python alone, None for `name`.
        extra: words that only the command has.
        needs: the extra of `bitplan.planner.extras` without which it does nothing; empty for none.
    """

    name: str
    file: str
    help: str = ""
    command: str | None = None
    extra: tuple[str, ...] = ()
    needs: str = ""

    @property
    def function(self) -> Any:
        function = getattr(import_module(f"{__name__}.{self.file}"), self.name)
        return entered(self.name, function, self.command or self.name, self.needs)


_ROWS = (  # in the order of work, in which `bitplan --help` lists them
    Verb("profile", "measure", "Measure what each scheme does to each layer of PIPELINE: `scenes`, a diffusers folder, "
         "a hub id, or package.module:name of a bitplan.Subject.", extra=("threads",), needs="torch"),
    Verb("merge", "measure", "Join PROFILES of one model that were measured apart, such as with `profile --part`."),
    Verb("import_profile", "measure", "Make a profile of what another tool measured: FORMAT is mixdq, FOLDER holds its "
         "files.", "import"),
    Verb("cost", "measure", "Time PROFILE's schemes on this machine, one layer at a time with random weights: the "
         "model is not needed.", extra=("threads",), needs="torch"),
    Verb("check", "measure", "Test whether PROFILE, of a base model, still holds for PIPELINE, a fine-tune of it. Exit "
         "code 0: it holds; 1: it does not, or the sample cannot tell.", extra=("threads",), needs="torch"),
    Verb("solve", "choose", "Choose the best scheme for every layer of PROFILE within budgets.", extra=("keep",)),
    Verb("sweep", "choose", "Choose the best plan of PROFILE at every limit of one cost or loss, with all other "
         "budgets fixed, and paint pictures by the plans.", extra=("keep", "threads")),
    Verb("report", "look", "Write a page that shows the folders RUNS of `bitplan sweep`: the trade-off, the plans, "
         "their pictures and where the bits go. It is one file and needs no network."),
    Verb("explore", "look", "Serve a page for this machine alone: drag the budgets of PROFILE, see its plan, save it, "
         "paint with it.", needs="explore"),
    Verb("verify", "choose", "Check PLAN against its PROFILE in exact arithmetic, without the solver."),
    Verb("predict", "choose", "Predict the losses of PLAN as a whole: the sum over its layers, and with their "
         "interactions."),
    Verb("why", "choose", "Show what every other scheme of LAYER would cost in PLAN, by its PROFILE."),
    Verb("apply", "use", command="", needs="torch"),
    Verb("restore", "use", command="", needs="torch"),
    Verb("config", "use", command="", needs="torch"),
    Verb("paint", "use", "Run PIPELINE with the plan's layers and paint pictures.", "apply", ("threads",), "torch"),
    Verb("evaluate", "use", "Compare predicted and measured losses of PLANS on PIPELINE, on prompts that the profile "
         "does not hold.", extra=("threads",), needs="torch"),
    Verb("bench", "use", "Time one denoiser call of PIPELINE with the plan's kernels and without.",
         extra=("threads",), needs="torch"),
    Verb("export", "use", "Write PLAN as another tool's own configuration, or refuse what that tool cannot express."),
    Verb("inspect", "look", "Show what a profile or a plan FILE holds, or what the configuration of a pipeline tells: "
         "layers, parameters, bytes, what is planned."),
    Verb("doctor", "look", "List the kernels, solvers, metrics and extras that are available here, and why others are "
         "not."),
)  # fmt: skip
VERBS = {verb.name: verb for verb in _ROWS}
COMMANDS = {verb.name if verb.command is None else verb.command: verb for verb in _ROWS if verb.command != ""}


def verb(name: str) -> Any:
    """The function of the verb `name`. Raises KeyError."""
    return VERBS[name].function
