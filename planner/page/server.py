"""The server behind `bitplan explore`: it serves the page and answers its requests for plans and pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
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
from bitplan.planner.page.lane import Lane, in_thread, outdated
from bitplan.planner.page.painter import Painter
from bitplan.planner.page.refusals import STATUSES, refused
from bitplan.planner.page.session import PageAnswer, Session, answer, curve, pose_anew, ranges_of, view_of
from bitplan.planner.page.watch import ReplacedError, WatchedFile, replaced
from bitplan.planner.profiles.profile import open_profile
from bitplan.plans.plan import Plan, save_plan


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
        file: the profile's file as it was when it was read; None until the application is made.
    """

    profile: Path
    plans: Path
    session: Session
    painter: Painter
    prompt: str
    token: str
    file: WatchedFile | None = None

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
        return led.request(self.kernels, self.session.known.evidence.target)

    def plan(self, words: PageRequest) -> Plan:
        """The plan that `bitplan solve` makes. Raises UserError."""
        self.check()
        with open_profile(self.profile) as store:
            plan = make_plans(store, self.request(words), Search())[0]
        self.check()
        return plan

    def check(self) -> None:
        """Raises ReplacedError where the profile's file is not the one of this state."""
        if self.file is not None:
            self.file.check()

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
PAGE, DIGEST = "x-bitplan-page", "x-bitplan-profile"  # headers: which open page asks, and the profile that it shows
_SAVING = threading.Lock()


class CurrentState:
    """The state that requests are answered from. It is read again when a page is opened after the profile was replaced.

    Attributes:
        state: the state.
        solving: runs the requests for plans.
        curves: runs the requests for curves.
    """

    def __init__(self, state: ExplorerState, reread: Callable[[], ExplorerState] | None) -> None:
        self.state = replace(state, file=state.file or WatchedFile(state.profile))
        self.solving, self.curves = Lane(), Lane()
        self._reread, self._lock = reread, threading.Lock()

    def opened(self) -> ExplorerState:
        """The state for a page that is being opened. Raises what reading the profile raises."""
        with self._lock:
            try:
                self.state.check()
            except ReplacedError:
                if self._reread is None:
                    raise
                file = WatchedFile(self.state.profile)  # before it is read, so that a change meanwhile is noticed
                self.state = replace(self._reread(), file=file, token=self.state.token)
            return self.state

    def shown(self, request: HttpRequest) -> ExplorerState:
        """The state for a request of an open page. Raises ReplacedError where the page shows another profile."""
        state = self.state
        state.check()
        digest = request.headers.get(DIGEST, "")
        if digest and state.file is not None and digest != state.file.digest:
            raise replaced(state.profile)
        return state


def app_of(state: ExplorerState, reread: Callable[[], ExplorerState] | None = None) -> FastAPI:
    """The application. Every refusal is `{"error": sentence}`.

    reread: makes the state anew from the profile's file; None to refuse a profile that was replaced.
    """
    app, current = FastAPI(docs_url=None, redoc_url=None, openapi_url=None), CurrentState(state, reread)
    app.add_middleware(Guard, token=state.token)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False)
    _add_pages(app, current)
    _add_answers(app, current)
    _add_results(app, current)
    for kind in (*STATUSES, ValueError, OSError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, refused)
    return app


def _add_pages(app: FastAPI, current: CurrentState) -> None:
    @app.get("/")
    async def page() -> HTMLResponse:
        text = await in_thread(lambda: _page(current.opened()))
        return HTMLResponse(text, headers={"content-security-policy": "frame-ancestors 'none'"})

    @app.get("/api/start")
    async def start(request: HttpRequest) -> dict[str, Any]:
        return await in_thread(lambda: _start(current.shown(request)))


def _add_answers(app: FastAPI, current: CurrentState) -> None:
    @app.post("/api/solve")
    async def solve(body: ToSolve, request: HttpRequest) -> Response:
        def work(still: Callable[[], None]) -> dict[str, Any]:
            state = current.shown(request)
            words = state.request(body.asked)
            result = answer(state.session, words, body.passing, partial(outdated, still))
            still()
            command = "" if body.passing else command_of(state.profile, Path(UNNAMED + SUFFIX), words)
            return _facts(result) | {"command": command}

        # FastAPI need not check our own objects
        return JSONResponse(await in_thread(lambda: current.solving.run(_page_of(request), work)))

    @app.post("/api/curve")
    async def points(body: PageRequest, request: HttpRequest) -> list[dict[str, Any]]:
        def work(still: Callable[[], None]) -> list[dict[str, Any]]:
            state = current.shown(request)
            problem = pose_anew(state.session, state.request(body))
            return [asdict(point) for point in curve(state.session, problem, still)]

        return await in_thread(lambda: current.curves.run(_page_of(request), work))


def _add_results(app: FastAPI, current: CurrentState) -> None:
    @app.post("/api/save")
    async def save(body: ToSave, request: HttpRequest) -> dict[str, Any]:
        return await in_thread(lambda: current.shown(request).save(body.asked, body.name))

    @app.post("/api/paint", status_code=202)
    async def paint(body: ToPaint, request: HttpRequest) -> dict[str, Any]:
        state = await in_thread(lambda: current.shown(request))
        return asdict(state.painter.start(lambda: state.plan(body.asked), body.prompt, body.seed))

    @app.get("/api/paint")
    async def painted() -> dict[str, Any]:
        return asdict(current.state.painter.picture)


def _page(state: ExplorerState) -> str:
    from bitplan.planner.page.html import page_of

    digest = "" if state.file is None else state.file.digest
    return page_of({"now": view_of(state.session, state.request(PageRequest()))}, live=digest or True)


def _page_of(request: HttpRequest) -> str:
    """The open page that asks; all that state none count as one."""
    return request.headers.get(PAGE, "")[:64]


def _facts(result: PageAnswer) -> dict[str, Any]:
    """The same as `dataclasses.asdict`, without a deep copy."""
    return vars(result) | {"variant": vars(result.variant)}


def _start(state: ExplorerState) -> dict[str, Any]:
    """What the page reads first, besides its view."""
    return {
        "profile": state.profile.name, "plans": str(state.plans), "ranges": ranges_of(state.session),
        "pipeline": state.painter.options.pipeline, "prompt": state.prompt,
    }  # fmt: skip
