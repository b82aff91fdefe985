"""The command `bitplan`: every verb as a sub-command."""

from bitplan.planner.cli.commands import main as main
