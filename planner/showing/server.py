"""The server behind `bitplan explore`: the page, and the solver, plans and pictures that it asks for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request

from planner import workflow
from planner.errors import UserError
from planner.showing.asking import Asked, ToPaint, ToSave, ToSolve, command_of, file_name, words_of
from planner.showing.guard import HOSTS, Guard
from planner.showing.painter import BusyError, Painter
from planner.showing.session import Session, answer, curve, pose_anew, ranges_of, view_of
from planner.solving import Search, make_plans
from planner.store import open_profile
from plans.plan import Plan

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Desk:
    """What the server works with. profile, plans: the file and the folder for plans; token: this run's."""

    profile: Path
    plans: Path
    session: Session
    painter: Painter
    token: str

    @property
    def kernels(self) -> str:
        return "int" if self.session.real else "fake"

    @cached_property
    def leaders(self) -> Mapping[str, str]:
        """Layer -> the layer of the same weight that pins name."""
        return {layer: group for group, layers in self.session.known.groups.items() for layer in layers}

    def led(self, asked: Asked) -> Asked:
        """With each pin on a layer's leader."""
        pins = {self.leaders.get(name, name): scheme for name, scheme in asked.pins.items()}
        return asked.model_copy(update={"pins": pins})

    def plan(self, asked: Asked) -> Plan:
        """The plan that `bitplan solve` makes. Raises UserError."""
        with open_profile(self.profile) as store:
            return make_plans(store, self.led(asked).request(self.session.real), Search())[0]
