"""The server behind the page: its answers are those of `bitplan solve`, and it answers its own page alone."""

from __future__ import annotations

import html
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bitplan
from bitplan.planner.choice.answer import Search, make_plans
from bitplan.planner.choice.evidence import read_evidence
from bitplan.planner.choice.limits import pose, settled
from bitplan.planner.choice.request import Request
from bitplan.planner.extras import EXTRAS
from bitplan.planner.page.painter import Painter, PaintOptions
from bitplan.planner.page.serve import measured, serve
from bitplan.planner.page.session import Session, answer, curve, pose_anew, ranges_of
from bitplan.planner.profiles.profile import open_profile
from bitplan.planner.views.profile_view import load_profile_view
from bitplan.plans.plan import load_plan
from bitplan.solvers.effort import Effort

pytest.importorskip("fastapi")
from starlette.testclient import TestClient  # noqa: E402

from bitplan.planner.page.guard import (
    LARGEST,
    TOKEN,  # noqa: E402
)
from bitplan.planner.page.server import (
    ExplorerState,
    app_of,  # noqa: E402
)

HERE = "http://127.0.0.1:8000"
SECRET = "the token of this run"


@pytest.fixture(scope="module")
def session(finished: Path) -> Session:
    with open_profile(finished) as store:
        return Session(load_profile_view(store))


@pytest.fixture
def state(finished: Path, session: Session, tmp_path: Path) -> ExplorerState:
    with open_profile(finished) as store:
        painter = Painter(measured(store, PaintOptions()))
    return ExplorerState(finished, tmp_path, session, painter, "a prompt", SECRET)


@pytest.fixture
def client(state: ExplorerState) -> Iterator[TestClient]:
    with TestClient(app_of(state), base_url=HERE, headers={TOKEN: SECRET, "origin": HERE}) as made:
        yield made


def asked(objective: str, memory: int, latency: int | None, pins: dict[str, str], confidence: float | None) -> Any:
    share = None if latency is None else f"{latency}%"
    return Request(f"{memory}%", share, objective=objective, pins=pins, confidence=confidence)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_answers_are_those_of_solve(finished: Path, session: Session, data: st.DataObject) -> None:
    evidence = session.known.evidence
    layers = data.draw(st.lists(st.sampled_from(sorted(session.known.groups)), max_size=3, unique=True))
    pins = {layer: data.draw(st.sampled_from(evidence.offered[layer])) for layer in layers}
    if data.draw(st.booleans()):
        pins["role:" + data.draw(st.sampled_from(sorted(set(evidence.roles.values()))))] = "keep"
    request = asked(
        data.draw(st.sampled_from(["both", "quality", "quality=1,alignment=0.25", "alignment"])),
        data.draw(st.integers(3, 60)), data.draw(st.none() | st.integers(60, 400)), pins,
        data.draw(st.sampled_from([None, None, 0.9])),
    )  # fmt: skip
    if data.draw(st.booleans()):
        request = replace(request, caps={"alignment": data.draw(st.sampled_from(["w8a8", "w2ma8", "0.5"]))})
    try:
        with open_profile(finished) as store:
            plan = make_plans(store, request, Search())[0]
    except bitplan.planner.errors.InfeasibleError as error:
        found = answer(session, request, False)
        assert found.variant.picks == () and found.why == str(error)
        passing = answer(session, request, True)
        assert passing.variant.picks == () and passing.why.startswith("no plan f")
        return
    except ValueError as error:
        with pytest.raises(type(error)) as refused:
            answer(session, request, False)
        assert str(refused.value) == str(error)
        return
    found, passing = (answer(session, request, quick) for quick in (False, True))
    assert found.why == "" and found.limits == plan.budgets
    assert found.variant.status == "optimal" == plan.solver["status"]
    assert found.variant.objective == pytest.approx(plan.solver["objective"], rel=1e-8, abs=1e-12)
    if passing.variant.picks:
        assert passing.variant.objective >= found.variant.objective * (1 - 1e-8)
        gap = passing.variant.gap
        assert gap is None or passing.variant.objective * (1 - gap) <= found.variant.objective * (1 + 1e-8) + 1e-12


def test_the_problem_is_the_one_that_solve_poses(finished: Path, session: Session) -> None:
    request = asked("quality=1,alignment=0.5", 20, 300, {"role:in": "keep"}, 0.9)
    request = replace(request, caps={"nsr": "w4g64ma8"})
    with open_profile(finished) as store:
        evidence = read_evidence(store, 0.9)
    posed, again = pose(evidence, settled(evidence, request), Effort()), pose_anew(session, request)
    assert posed.budgets == again.budgets and posed.objective == again.objective and posed.ties == again.ties
    assert (posed.allowed == again.allowed).all() and not posed.allowed.all()
    assert posed.columns.keys() == again.columns.keys()
    assert all((posed.columns[name] == again.columns[name]).all() for name in posed.columns)


def test_the_curve_falls_as_memory_grows(session: Session) -> None:
    free = pose_anew(session, Request())
    points = curve(session, free)
    assert len(points) > 20 and all(p.totals["bytes"] <= p.limit for p in points)
    assert [p.limit for p in points] == sorted((p.limit for p in points), reverse=True)
    assert points[0].objective < points[-1].objective / 10
    least, most = ranges_of(session)["bytes"]
    assert points[-1].limit == least and points[0].limit <= most


def test_the_page_comes_with_the_token_alone(client: TestClient) -> None:
    page = client.get(f"/?token={SECRET}")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    assert (
        "connect-src 'self'" in html.unescape(page.text)
        and "frame-ancestors 'none'" in page.headers["content-security-policy"]
    )
    assert SECRET not in page.text and page.headers["cache-control"] == "no-store"
    for wrong in ("/", "/?token=", "/?token=other", f"/?token={SECRET}x"):
        refused = client.get(wrong)
        assert refused.status_code == 403 and "bitplan explore" in refused.json()["error"]
    assert client.get("/docs").status_code == 404 and client.get("/openapi.json").status_code == 404


ORDERS = ("/api/solve", "/api/curve", "/api/save", "/api/paint")


@pytest.mark.parametrize("path", ORDERS)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 400), ({"host": "127.0.0.1.evil.example"}, 400),
        ({"origin": "http://evil.example"}, 403), ({"origin": "null"}, 403), ({"origin": ""}, 403),
        ({"origin": "http://127.0.0.1:9"}, 403), ({"origin": "https://127.0.0.1:8000"}, 403),
        ({TOKEN: ""}, 403), ({TOKEN: "guess"}, 403), ({"content-length": str(LARGEST + 1)}, 413),
        ({"content-length": "-1"}, 411),
    ],
)  # fmt: skip
def test_other_pages_are_refused(client: TestClient, tmp_path: Path, path: str, headers: Any, status: int) -> None:
    found = client.post(path, json={"asked": {}, "name": "p", "prompt": "", "seed": 0}, headers=headers)
    assert found.status_code == status
    assert not list(tmp_path.iterdir())


def test_it_may_be_forwarded(client: TestClient) -> None:
    forwarded = {"host": "localhost:9000", "origin": "http://localhost:9000"}
    assert client.post("/api/solve", json={"asked": {"memory": "30%"}}, headers=forwarded).status_code == 200


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"memory": "much"}, "memory budget 'much' is not an amount"), ({"memory": "nan%"}, "is not an amount"),
        ({"objective": "speed"}, "speed is a cost, not a loss"), ({"caps": {"nsr": "w9a9"}}, "w9a9"),
        ({"pins": {"nothing": "keep"}}, "no layer or block is named 'nothing'"), ({"confidence": 2}, "--confidence 2"),
        ({"pins": {"role:none": "keep"}}, "no layer has the role"),
        ({"objective": "lexicographic:quality,bytes"}, "stage"),
        ({"budget": 3}, "asked.budget"), ({"memory": 7}, "asked.memory"), ({"memory": "x" * 400}, "asked.memory"),
        ({"objective": "quality=-1"}, "weight"), ({"objective": "quality=nan"}, "weight"),
    ],
)  # fmt: skip
def test_bad_questions_get_a_sentence(client: TestClient, body: Any, says: str) -> None:
    found = client.post("/api/solve", json={"asked": body})
    assert found.status_code in (400, 422)
    assert says in found.json()["error"] and "\n" not in found.json()["error"]


def test_what_is_no_json_is_refused(client: TestClient) -> None:
    for content in (b"", b"{", b"[]", b"\xff\xfe", b"null"):
        assert client.post("/api/solve", content=content).status_code == 422


def test_no_plan_says_how_far_one_could_go(client: TestClient) -> None:
    for passing in (True, False):
        found = client.post("/api/solve", json={"asked": {"memory": "1%"}, "passing": passing}).json()
        assert found["variant"]["picks"] == [] and found["variant"]["status"] == "infeasible"
        assert "bytes can get no smaller than" in found["why"]


def test_what_is_saved_is_what_solve_writes(
    client: TestClient, state: ExplorerState, finished: Path, tmp_path: Path, latency: Callable[..., str]
) -> None:
    layer = next(iter(state.session.known.groups))
    limits = {"memory": "20%", "caps": {"alignment": "w2ma8"}, "confidence": 0.9,
              "pins": {layer: "w8a8", "role:out": "keep"}}  # fmt: skip
    question = limits | {"latency": latency(**limits), "objective": "quality=1,alignment=0.5"}
    found = client.post("/api/save", json={"asked": question, "name": "mine"})
    assert found.status_code == 200, found.text
    saved = Path(found.json()["path"])
    assert saved == tmp_path / "mine.plan.yaml"
    bitplan.solve(finished, tmp_path / "other.plan.yaml", **question)
    assert saved.read_bytes() == (tmp_path / "other.plan.yaml").read_bytes()
    assert bitplan.verify(load_plan(saved), finished).failures == ()


def test_the_command_shown_makes_the_plan_saved(client: TestClient, tmp_path: Path, command_line: Any) -> None:
    question = {"memory": "20%", "pins": {"role:out": "keep"}, "caps": {"nsr": "w2ma8"}}
    done = client.post("/api/save", json={"asked": question, "name": "a.plan.yaml"}).json()
    saved = Path(done["path"]).rename(tmp_path / "kept")
    program, *words = shlex.split(done["command"])
    assert program == "bitplan" and command_line(*words).exit_code == 0
    assert Path(done["path"]).read_bytes() == saved.read_bytes()


def test_nothing_is_overwritten(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "p.plan.yaml").write_text("mine")
    (tmp_path / "link.plan.yaml").symlink_to(tmp_path / "elsewhere")
    for name in ("p", "p.plan.yaml", "link"):
        found = client.post("/api/save", json={"asked": {"memory": "30%"}, "name": name})
        assert found.status_code == 400 and "choose another name" in found.json()["error"]
    assert (tmp_path / "p.plan.yaml").read_text() == "mine" and not (tmp_path / "elsewhere").exists()


NOWHERE = ("../p", "/tmp/p", "a/b", "a\\b", "", ".hidden", "p\n", "p\0", "-p", "p q", "é", "x" * 101)


@pytest.mark.parametrize("name", NOWHERE)
def test_names_lead_nowhere_else(client: TestClient, tmp_path: Path, name: str) -> None:
    found = client.post("/api/save", json={"asked": {"memory": "30%"}, "name": name})
    assert found.status_code == 422 and found.json()["error"].startswith("name:")
    assert not list(tmp_path.iterdir())


def painted(client: TestClient) -> Any:
    for _ in range(600):
        told = client.get("/api/paint").json()
        if told["state"] in ("done", "failed"):
            return told
        time.sleep(0.05)
    raise AssertionError(told)


def test_one_picture_is_painted_at_a_time(
    client: TestClient, state: ExplorerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/api/paint").json()["state"] == "idle"
    body = {"asked": {"memory": "30%"}, "prompt": "a large red circle", "seed": 3}
    assert client.post("/api/paint", json=body).status_code == 202
    second = client.post("/api/paint", json=body)
    assert second.status_code == 409 and "wait" in second.json()["error"]
    told = painted(client)
    assert told["state"] == "done", told["error"]
    assert told["plan"].startswith("data:image/png;base64,") and told["full"] != told["plan"]
    client.post("/api/paint", json=body | {"asked": {"pins": {f"role:{r}": "keep" for r in set(roles(state))}}})
    kept = painted(client)
    assert kept["plan"] == kept["full"] == told["full"]  # all kept; and the model was put back as it was


def roles(state: ExplorerState) -> list[str]:
    return [role for role in state.session.known.evidence.roles.values() if role]


def test_what_cannot_be_painted_says_so(client: TestClient, state: ExplorerState) -> None:
    for body, status in (({"prompt": "x" * 2001}, 422), ({"seed": -1}, 422), ({"seed": 2**31}, 422)):
        body = {"asked": {}, "prompt": "", "seed": 0} | body
        assert client.post("/api/paint", json=body).status_code == status
    client.post("/api/paint", json={"asked": {"memory": "1%"}, "prompt": "", "seed": 0})
    told = painted(client)
    assert told["state"] == "failed" and "no plan fits" in told["error"]
    state.painter.options = replace(state.painter.options, pipeline="./nowhere")
    client.post("/api/paint", json={"asked": {"memory": "30%"}, "prompt": "", "seed": 0})
    assert "there is no pipeline folder ./nowhere" in painted(client)["error"]


def test_painting_without_torch_says_what_to_install(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "torch", replace(EXTRAS["torch"], packages=("no_such_package",)))
    client.post("/api/paint", json={"asked": {"memory": "30%"}, "prompt": "", "seed": 0})
    assert painted(client)["error"].startswith("painting needs no_such_package, which is not installed: pip install")


def test_what_cannot_be_served_is_refused(finished: Path, tmp_path: Path, command_line: Any) -> None:
    with pytest.raises(bitplan.planner.errors.UserError, match="there is no folder"):
        serve(finished, tmp_path / "none", PaintOptions(), 0, False)
    result = command_line("explore", tmp_path / "none.profile")
    assert result.exit_code == 2 and "there is no such file" in result.stderr
    assert "another --port" in command_line("explore", finished, "--port", 99999).stderr
