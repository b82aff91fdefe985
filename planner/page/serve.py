"""Serves the page of one profile, with the solver behind it, to browsers on this machine."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bitplan.planner.errors import UserError
from bitplan.planner.page.painter import Painter, PaintOptions
from bitplan.planner.page.session import Session
from bitplan.planner.pipelines.references import read_name
from bitplan.planner.profiles.profile import Profile, open_profile
from bitplan.planner.texts import one_line, system_reason
from bitplan.planner.views.profile_view import load_profile_view

if TYPE_CHECKING:
    from bitplan.planner.page.server import ExplorerState

HERE = "127.0.0.1"


def serve(
    profile: Path, plans: Path | None, options: PaintOptions, port: int, show: bool, target: str | None = None
) -> None:
    """Serve the page until interrupted.

    Args:
        profile: the profile's file.
        plans: the folder in which plans are saved; None for the profile's own folder.
        options: what paints; what is None there is taken from the profile.
        port: the port; 0 for any free one.
        show: whether to open a browser.
        target: the tool that plans are made for; None for BitPlan itself.

    Raises UserError.
    """
    from bitplan.planner.page.local import run_server
    from bitplan.planner.page.server import app_of

    state = state_of(profile, plans, options, target)
    with _listening(port) as listener:
        address = f"http://{HERE}:{listener.getsockname()[1]}/?token={state.token}"
        print(f"exploring {profile} at {address}\nplans are saved in {state.plans}; stop with Ctrl-C", flush=True)
        if show:
            threading.Timer(0.5, webbrowser.open, [address]).start()
        with contextlib.suppress(KeyboardInterrupt):
            run_server(app_of(state, lambda: state_of(profile, plans, options, target)), listener)
    print("stopped")


def state_of(profile: Path, plans: Path | None, options: PaintOptions, target: str | None = None) -> ExplorerState:
    """The state of a new server, with a token of its own. Raises UserError for a folder that does not exist."""
    from bitplan.planner.page.server import ExplorerState

    folder = plans or profile.absolute().parent
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} for plans; make it, or choose another --plans")
    with open_profile(profile) as store:
        session = Session(load_profile_view(store, None, target), options.kernels == "int")
        painter = Painter(measured(store, options))
        prompt = next((p for p in store.header()["settings"]["prompts"] if isinstance(p, str)), "")
    return ExplorerState(profile, folder, session, painter, prompt, secrets.token_urlsafe(16))


def measured(store: Profile, options: PaintOptions) -> PaintOptions:
    """Complete the options from the profile: its pipeline, with the steps and guidance of the measurement."""
    if options.pipeline is not None:
        return options
    header = store.header()
    own = header["settings"].get("generation", {})
    guidance = own.get("guidance") if options.guidance is None else options.guidance
    pipeline, steps = read_name(header["model"]["name"], store.path, options.trust), options.steps or own.get("steps")
    return replace(options, pipeline=pipeline, steps=steps, guidance=guidance, call=own.get("options", {}))


def _listening(port: int) -> socket.socket:
    """A listening socket that only this machine can reach. Raises UserError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HERE, port))
        listener.listen()  # before the address is printed, so that a browser is never refused
    except (OSError, OverflowError) as error:
        listener.close()
        why = system_reason(error) if isinstance(error, OSError) else one_line(error)
        raise UserError(f"cannot listen at port {port}: {why}; choose another --port, or 0 for any") from None
    return listener
