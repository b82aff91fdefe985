"""Requests to the explorer: every answer is JSON with a documented status, and nothing but plans is written."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.fuzz.box import watched
from tests.fuzz.case import Case, raised
from tests.fuzz.lines import VALUES
from tests.fuzz.values import NAMES, NUMBERS, PATHS, TEXTS, Random, mutated, nasty, spoilt, text_of
from tests.fuzz.world import copied, plan_data

STATUSES = {200, 202, 400, 403, 404, 405, 409, 413, 415, 422}
ROUTES = ("/api/solve", "/api/solve", "/api/curve", "/api/save", "/api/save", "/api/paint", "/api/paint", "/api/start",
          "/", "/api/nothing")  # fmt: skip
PICTURE = json.dumps({"asked": {"memory": "30%"}, "prompt": "", "seed": 0}).encode()  # a good one to paint
WORDS = ("memory", "latency", "bits", "caps", "objective", "slack", "pins", "confidence", "kernels", "more")


def run(case: Case) -> None:
    """Opens the explorer on the profile, and sends a few requests."""
    from starlette.testclient import TestClient

    from bitplan.planner.page.painter import PaintOptions
    from bitplan.planner.page.serve import state_of
    from bitplan.planner.page.server import app_of

    paints = case.random.random() < 0.3  # else the profile names the canary, which may not be imported
    profile = copied(case.world.whole if paints else case.world.profile, case.box.inputs)
    options = PaintOptions(str(case.world.pipeline) if paints else None, 1 if paints else None, None, "int")
    with watched(case.box):
        state = state_of(profile, case.box.out, options)
        client = TestClient(app_of(state), "http://127.0.0.1", raise_server_exceptions=False)
    for _ in range(case.random.choice((1, 2, 3))):
        due = _send(case, client, state.token) and paints
        _painted(case, state.painter, due)
    for path in case.box.out.iterdir():
        if not _is_plan(path):
            case.find("the explorer wrote something else than a plan", (path.name, case.edits))


def _painted(case: Case, painter: Any, due: bool) -> None:
    """Waits for the picture that is being painted, and checks what the page shows of it. due: whether there must be
    one.
    """
    with watched(case.box):
        while painter.picture.busy:
            time.sleep(0.01)
    picture = painter.picture
    if picture.state == "done" and not (picture.plan.startswith("data:image") and picture.full):
        case.find("a picture is done and not there", (picture, case.edits))
    if due and picture.state != "done":
        case.find("a picture is not painted", (picture, case.edits))
    if picture.state == "failed" and ("\n" in picture.error or not picture.error or "report" in picture.error):
        case.find(f"painting failed with a report: {picture.error[:60]}", (picture.error, case.edits))


def _send(case: Case, client: Any, token: str) -> bool:
    """Sends a request, and checks its answer. Returns whether it was a good one for a picture."""
    random = case.random
    route = random.choice(ROUTES)
    body = _body(random, route)
    sent = spoilt(body, random) if random.random() < 0.1 else body
    secret = token if random.random() < 0.95 else random.choice(("", "x", token[:-1]))
    case.edits.append(f"{route} {sent[:300]!r}")
    headers = {"content-type": "application/json", "x-bitplan-token": secret, "origin": "http://127.0.0.1"}
    try:
        with watched(case.box):
            method = "GET" if route in ("/", "/api/start") else "POST"
            answer = client.request(method, route, params={"token": secret}, content=sent, headers=headers)
    except Exception as error:
        case.find(f"raised {raised(error)}", (error, case.edits[-1]))
        return False
    if answer.status_code not in STATUSES:
        case.find(f"status {answer.status_code} of {route}", (answer.text[:200], case.edits[-1]))
    if secret != token and answer.status_code == 200:
        case.find("an answer without the token", case.edits[-1])
    if route.startswith("/api/") and answer.status_code != 403:
        _check(case, answer)
    return route == "/api/paint" and sent == PICTURE and secret == token


def _check(case: Case, answer: Any) -> None:
    try:
        data = json.loads(answer.text, parse_constant=_refuse)
    except ValueError as error:
        case.find("an answer that is not JSON", (error, answer.status_code, case.edits[-1]))
        return
    if answer.status_code >= 400 and (not isinstance(data, dict) or "\n" in str(data.get("error", "\n"))):
        case.find("a refusal that is not one line", (answer.text[:200], case.edits[-1]))


def _refuse(text: str) -> None:
    raise ValueError(text)


def _is_plan(path: Path) -> bool:
    try:
        return path.suffix in (".yaml", ".yml") and "schemes" in plan_data(path)
    except (OSError, ValueError, TypeError):
        return False


def _body(random: Random, route: str) -> bytes:
    asked = {name: _word(random, name) for name in random.sample(WORDS[:8], random.choice((0, 1, 1, 2, 3)))}
    body: Any = asked if route == "/api/curve" else {"asked": asked}
    if route == "/api/save":
        body["name"] = random.choice(("P", "Q.plan.yaml", "x.yml", *PATHS, *NAMES, *TEXTS))
    if route == "/api/paint":
        if random.random() < 0.5:
            return PICTURE
        body |= {"prompt": random.choice(("", "", "a cat", *TEXTS)), "seed": random.choice((0, 0, 1, *NUMBERS))}
    if random.random() < 0.3:
        body = mutated(body, random)
    return text_of(body).encode("utf-8", "surrogatepass")


def _word(random: Random, name: str) -> Any:
    if random.random() < 0.15:
        return nasty(random)
    if name in ("caps", "pins"):
        keys = ("nsr", "quality", "bytes", "unet.conv_in", "role:in", "unet.conv_out", random.choice(TEXTS))
        return {random.choice(keys): random.choice(VALUES) for _ in range(random.choice((1, 2)))}
    if name in ("bits", "slack", "confidence"):
        return random.choice((*NUMBERS, 4, 0.9, 0.95))
    return random.choice(VALUES)
