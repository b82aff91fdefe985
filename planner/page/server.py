"""The server behind `bitplan explore`: the page, and the solver, plans and pictures that it asks for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request

from bitplan.planner.choice.answer import Search, make_plans
from bitplan.planner.errors import UserError
from bitplan.planner.page.asking import SUFFIX, PageRequest, ToPaint, ToSave, ToSolve, command_of, file_name
from bitplan.planner.page.guard import HOSTS, Guard
from bitplan.planner.page.painter import BusyError, Painter
from bitplan.planner.page.session import PageAnswer, Session, answer, curve, pose_anew, ranges_of, view_of
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.texts import one_line
from bitplan.plans.plan import Plan, save_plan

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ExplorerState:
    """What the server works with. profile, plans: the file and the folder for plans; prompt: to begin with; token: this
    run's."""

    profile: Path
    plans: Path
    session: Session
    painter: Painter
    prompt: str
    token: str

    @property
    def kernels(self) -> str:
        return "int" if self.session.real else "fake"

    @cached_property
    def leaders(self) -> Mapping[str, str]:
        """Layer -> the layer of the same weight that pins name."""
        return {layer: group for group, layers in self.session.known.groups.items() for layer in layers}

    def led(self, asked: PageRequest) -> PageRequest:
        """With each pin on a layer's leader."""
        pins = {self.leaders.get(name, name): scheme for name, scheme in asked.pins.items()}
        return asked.model_copy(update={"pins": pins})

    def plan(self, asked: PageRequest) -> Plan:
        """The plan that `bitplan solve` makes. Raises UserError."""
        with open_profile(self.profile) as store:
            return make_plans(store, self.led(asked).request(self.session.real), Search())[0]

    def save(self, asked: PageRequest, name: str) -> dict[str, Any]:
        """Solve as `bitplan solve` does, and write the plan file. Raises UserError where there is one of that name."""
        asked, out = self.led(asked), self.plans / file_name(name)
        command = command_of(self.profile, out, asked, self.kernels)
        with _SAVING:
            if out.exists() or out.is_symlink():
                raise UserError(f"{out.name} exists in {self.plans}; choose another name")
            plan = self.plan(asked)
            save_plan(plan, out)
        return {
            "path": str(out),
            "command": command,
            "status": plan.solver["status"],
            "totals": plan.predictions["total"],
        }


ANY = "P"  # the name of a plan file where none is chosen yet
_SAVING = threading.Lock()


def app_of(desk: ExplorerState) -> FastAPI:
    """The application. Every refusal is `{"error": sentence}`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, token=desk.token)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False)
    _add_pages(app, desk)
    _add_work(app, desk)
    for kind in (BusyError, ValueError, OSError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _refused)
    return app


def _add_pages(app: FastAPI, desk: ExplorerState) -> None:
    @app.get("/")
    def page() -> HTMLResponse:
        from bitplan.planner.page.html import page_of

        view = view_of(desk.session, PageRequest().request(desk.session.real))
        text = page_of({"now": view}, live=True)
        return HTMLResponse(text, headers={"content-security-policy": "frame-ancestors 'none'"})

    @app.get("/api/start")
    def start() -> dict[str, Any]:
        return _start(desk)


def _add_work(app: FastAPI, desk: ExplorerState) -> None:
    @app.post("/api/solve")
    def solve(body: ToSolve) -> Response:
        asked = desk.led(body.asked)
        found = answer(desk.session, asked.request(desk.session.real), body.passing)
        out = Path(ANY + SUFFIX)
        command = "" if body.passing else command_of(desk.profile, out, asked, desk.kernels)
        return JSONResponse(_told(found) | {"command": command})  # as it is: what FastAPI would check is our own

    @app.post("/api/curve")
    def points(asked: PageRequest) -> list[dict[str, Any]]:
        problem = pose_anew(desk.session, desk.led(asked).request(desk.session.real))
        return [asdict(point) for point in curve(desk.session, problem)]

    @app.post("/api/save")
    def save(body: ToSave) -> dict[str, Any]:
        return desk.save(body.asked, body.name)

    @app.post("/api/paint", status_code=202)
    def paint(body: ToPaint) -> dict[str, Any]:
        return asdict(desk.painter.start(lambda: desk.plan(body.asked), body.prompt, body.seed))

    @app.get("/api/paint")
    def painted() -> dict[str, Any]:
        return asdict(desk.painter.told)


def _told(found: PageAnswer) -> dict[str, Any]:
    """As `dataclasses.asdict`, without a copy of all that it holds."""
    return vars(found) | {"variant": vars(found.variant)}


def _start(desk: ExplorerState) -> dict[str, Any]:
    """What the page is told at first, besides its view."""
    return {
        "profile": desk.profile.name, "plans": str(desk.plans), "ranges": ranges_of(desk.session),
        "pipeline": desk.painter.studio.pipeline, "prompt": desk.prompt,
    }  # fmt: skip


def _refused(request: Request, error: Exception) -> JSONResponse:
    """The error in one line, as the command line says it."""
    status, text = 400, one_line(error)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        status, text = 422, f"{'.'.join(str(part) for part in first['loc'][1:])}: {first['msg']}"
    elif isinstance(error, HTTPException):
        status, text = error.status_code, str(error.detail)
    elif isinstance(error, BusyError):
        status = 409
    elif isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror}; check the path, its permissions and the disk"
    elif not isinstance(error, ValueError):
        log.error("the server failed", exc_info=error)
        status, text = 500, f"{type(error).__name__}: {text}"
    return JSONResponse({"error": text}, status)
