"""`python -m bitplan`, the same as the command `bitplan`."""

from bitplan.planner.cli import main

main(prog_name="bitplan")
