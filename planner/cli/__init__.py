"""The command `bitplan`, with one sub-command for each verb."""

from bitplan.planner.cli.commands import main as main
