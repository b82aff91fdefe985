"""The story on one page: each verb reads files and writes files, and is a sub-command of the same name.

pipeline -> layer graph -> calibration -> costs and sensitivities -> X.profile         profile
X.profile + budgets -> problem -> solution -> P.plan.yaml                              solve
X.profile + limits of one column -> plans, and their pictures -> RUN                   sweep
RUNs -> one page that shows their plans, pictures and layers                           report
X.profile + a browser -> plans solved as budgets are dragged, saved, painted           explore
P.plan.yaml + X.profile -> does it hold, why is it so, what does it do as a whole      verify, why, predict
P.plan.yaml + pipeline -> swapped layers, fake or real kernels -> images               apply, restore, config
P.plan.yaml + pipeline + held-out prompts -> predicted beside measured                 evaluate
X.profile + a fine-tune -> does the old ranking still hold                             check
P.plan.yaml + pipeline -> milliseconds of a denoiser call                              bench
P.plan.yaml + the model's shapes -> another tool's configuration                       export
a configuration -> layers, multiply-adds, bytes; X.profile of elsewhere -> costs here  inspect, cost
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_BY_FILE = {  # each verb imports what it needs when it runs: solving needs no torch
    "measure": ("profile", "merge", "import_profile", "cost", "check"),
    "choose": ("solve", "sweep", "verify", "predict", "why"),
    "use": ("apply", "restore", "config", "paint", "evaluate", "bench", "export"),
    "look": ("inspect", "doctor", "explore", "report"),
}
VERBS = {verb: f"bitplan.planner.verbs.{file}" for file, verbs in _BY_FILE.items() for verb in verbs}


def verb(name: str) -> Any:
    """The function of the verb `name`. Raises KeyError."""
    return getattr(import_module(VERBS[name]), name)
