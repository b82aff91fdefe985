"""The server behind `bitplan explore`: it serves the page and answers its requests for plans and pictures."""

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
from starlette.requests import Request as HttpRequest

from bitplan.planner.choice.answer import Search, make_plans
from bitplan.planner.choice.request import Request
from bitplan.planner.errors import UserError
from bitplan.planner.files import inside
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
    """What the server works with.

    Attributes:
        profile: the profile's file.
        plans: the folder in which plans are saved.
        session: the profile held open for requests.
        painter: paints pictures in a thread of its own.
        prompt: the prompt that the page offers first.
        token: the secret of this run, which every request must carry.
    """

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

    def request(self, words: PageRequest) -> Request:
        """The request of these words, with each pin on its layer's leader. Raises UserError."""
        pins = {self.leaders.get(name, name): scheme for name, scheme in words.pins.items()}
        led: PageRequest = words.model_copy(update={"pins": pins})
        return led.request(self.kernels)

    def plan(self, words: PageRequest) -> Plan:
        """The plan that `bitplan solve` makes. Raises UserError."""
        with open_profile(self.profile) as store:
            return make_plans(store, self.request(words), Search())[0]

    def save(self, words: PageRequest, name: str) -> dict[str, Any]:
        """Solve as `bitplan solve` does and write the plan file. Raises UserError where a file of that name exists."""
        out = inside(self.plans, file_name(name))
        command = command_of(self.profile, out, self.request(words))
        with _SAVING:
            if out.exists() or out.is_symlink():
                raise UserError(f"{out.name} exists in {self.plans}; choose another name")
            plan = self.plan(words)
            save_plan(plan, out)
        return {
            "path": str(out), "command": command, "status": plan.solver["status"], "totals": plan.predictions["total"],
        }  # fmt: skip


UNNAMED = "P"  # the name of a plan file where the user has not chosen one
_SAVING = threading.Lock()


def app_of(state: ExplorerState) -> FastAPI:
    """The application. Every refusal is `{"error": sentence}`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, token=state.token)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False)
    _add_pages(app, state)
    _add_work(app, state)
    for kind in (BusyError, ValueError, OSError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _refused)
    return app


def _add_pages(app: FastAPI, state: ExplorerState) -> None:
    @app.get("/")
    def page() -> HTMLResponse:
        from bitplan.planner.page.html import page_of

        view = view_of(state.session, state.request(PageRequest()))
        text = page_of({"now": view}, live=True)
        return HTMLResponse(text, headers={"content-security-policy": "frame-ancestors 'none'"})

    @app.get("/api/start")
    def start() -> dict[str, Any]:
        return _start(state)


def _add_work(app: FastAPI, state: ExplorerState) -> None:
    @app.post("/api/solve")
    def solve(body: ToSolve) -> Response:
        request = state.request(body.asked)
        result = answer(state.session, request, body.passing)
        command = "" if body.passing else command_of(state.profile, Path(UNNAMED + SUFFIX), request)
        return JSONResponse(_facts(result) | {"command": command})  # FastAPI need not check our own objects

    @app.post("/api/curve")
    def points(body: PageRequest) -> list[dict[str, Any]]:
        problem = pose_anew(state.session, state.request(body))
        return [asdict(point) for point in curve(state.session, problem)]

    @app.post("/api/save")
    def save(body: ToSave) -> dict[str, Any]:
        return state.save(body.asked, body.name)

    @app.post("/api/paint", status_code=202)
    def paint(body: ToPaint) -> dict[str, Any]:
        return asdict(state.painter.start(lambda: state.plan(body.asked), body.prompt, body.seed))

    @app.get("/api/paint")
    def painted() -> dict[str, Any]:
        return asdict(state.painter.picture)


def _facts(result: PageAnswer) -> dict[str, Any]:
    """The same as `dataclasses.asdict`, without a deep copy."""
    return vars(result) | {"variant": vars(result.variant)}


def _start(state: ExplorerState) -> dict[str, Any]:
    """What the page reads first, besides its view."""
    return {
        "profile": state.profile.name, "plans": str(state.plans), "ranges": ranges_of(state.session),
        "pipeline": state.painter.options.pipeline, "prompt": state.prompt,
    }  # fmt: skip


def _refused(request: HttpRequest, error: Exception) -> JSONResponse:
    """The error on one line, in the same words as on the command line."""
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
