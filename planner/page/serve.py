"""A profile explored in a browser: the page of `bitplan.planner.page`, with the solver behind it, on this machine
alone."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import webbrowser
from dataclasses import replace
from pathlib import Path

from bitplan.planner.errors import UserError
from bitplan.planner.page.painter import Painter, PaintOptions
from bitplan.planner.page.session import Session
from bitplan.planner.profiles.profile import Profile, open_profile
from bitplan.planner.views.known import know

HERE = "127.0.0.1"
EXTRA = "`bitplan explore` needs fastapi, uvicorn and plotly; pip install 'bitplan[explore]'"


def serve(profile: Path, plans: Path | None, studio: PaintOptions, port: int, show: bool) -> None:
    """Answer until interrupted. plans: where plans are saved, None for the profile's own folder; studio: what paints,
    what it does not say as the profile was measured; port: 0 for any that is free; show: open a browser. Raises
    UserError."""
    try:
        import uvicorn

        from bitplan.planner.page.server import ExplorerState, app_of
    except ImportError as error:
        raise UserError(f"{EXTRA} ({error})") from None
    folder = plans or profile.absolute().parent
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} for plans; make it, or choose another --plans")
    with open_profile(profile) as store:
        session, painter = Session(know(store), studio.kernels == "int"), Painter(measured(store, studio))
        prompt = next((p for p in store.header()["settings"]["prompts"] if isinstance(p, str)), "")
    token = secrets.token_urlsafe(16)
    app = app_of(ExplorerState(profile, folder, session, painter, prompt, token))
    with _listening(port) as listener:
        address = f"http://{HERE}:{listener.getsockname()[1]}/?token={token}"
        print(f"exploring {profile} at {address}\nplans are saved in {folder}; stop with Ctrl-C", flush=True)
        if show:
            threading.Timer(0.5, webbrowser.open, [address]).start()
        config = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=1, server_header=False, lifespan="off"
        )
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    print("stopped")


def measured(store: Profile, studio: PaintOptions) -> PaintOptions:
    """The studio with what it does not say taken from the profile: its pipeline, run as it was when it was measured."""
    if studio.pipeline is not None:
        return studio
    header = store.header()
    own = header["settings"].get("generation", {})
    guidance = own.get("guidance") if studio.guidance is None else studio.guidance
    return replace(studio, pipeline=header["model"]["name"], steps=studio.steps or own.get("steps"), guidance=guidance,
                   call=own.get("options", {}))  # fmt: skip


def _listening(port: int) -> socket.socket:
    """A socket that only this machine reaches. Raises UserError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HERE, port))
        listener.listen()  # before the address is printed: who opens it at once waits, and is not refused
    except (OSError, OverflowError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen at port {port}: {why}; choose another --port, or 0 for any") from None
    return listener
