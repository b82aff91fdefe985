"""The explorer over time: replaced profiles, abandoned requests, slow senders, errors of the pipeline, and its end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitplan.planner.page.painter import Painter, PaintOptions
from bitplan.planner.page.serve import state_of
from bitplan.planner.progress import silenced

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")
from starlette.testclient import TestClient  # noqa: E402

from bitplan.planner.page import guard, server  # noqa: E402
from bitplan.planner.page.guard import TOKEN  # noqa: E402
from bitplan.planner.page.lane import Lane, OutdatedError  # noqa: E402
from bitplan.planner.page.local import LocalServer, _is_idle  # noqa: E402
from bitplan.planner.page.server import DIGEST, PAGE, ExplorerState, app_of  # noqa: E402

HERE, SECRET = "http://127.0.0.1:8000", "the token of this run"
HEADERS = {TOKEN: SECRET, "origin": HERE}
QUESTION = {"asked": {"memory": "30%"}}


@pytest.fixture
def profile(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(finished, tmp_path / "t.profile"))


@pytest.fixture
def state(profile: Path) -> ExplorerState:
    return replace(state_of(profile, None, PaintOptions()), token=SECRET)


@pytest.fixture
def client(state: ExplorerState) -> Iterator[TestClient]:
    app = app_of(state, lambda: state_of(state.profile, None, PaintOptions()))
    with TestClient(app, base_url=HERE, headers=HEADERS, raise_server_exceptions=False) as made:
        yield made


def spoil(profile: Path) -> None:
    """Replace the profile by one of the same size with other times."""
    other = Path(shutil.copy(profile, profile.with_name("other")))
    with sqlite3.connect(other) as db:
        db.execute("UPDATE costs SET ms = ms * 1.5, error = error * 1.5")
    os.replace(other, profile)


ASKING = [("/api/solve", QUESTION), ("/api/save", QUESTION | {"name": "p"}), ("/api/curve", {}),
          ("/api/paint", QUESTION | {"prompt": "", "seed": 0})]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), ASKING, ids=lambda value: value if isinstance(value, str) else "")
def test_a_replaced_profile_is_noticed(client: TestClient, profile: Path, path: str, body: Any) -> None:
    spoil(profile)
    found = client.post(path, json=body)
    assert found.status_code == 410 and found.json() == {
        "error": "t.profile was replaced while this page was open; reload the page to plan with the new one",
        "reload": True,
    }
    assert not list(profile.parent.glob("*.plan.yaml"))


def test_a_profile_replaced_while_it_is_solved_is_not_saved(
    client: TestClient, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = server.make_plans

    def slow(*arguments: Any) -> Any:
        plans = make(*arguments)
        spoil(profile)
        return plans

    monkeypatch.setattr(server, "make_plans", slow)
    found = client.post("/api/save", json=QUESTION | {"name": "p"})
    assert found.status_code == 410 and not list(profile.parent.glob("*.plan.yaml"))


def test_a_page_opened_again_plans_with_the_new_profile(client: TestClient, profile: Path) -> None:
    def solved(**headers: str) -> Any:
        return client.post("/api/solve", json=QUESTION, headers=headers).json()

    first, old = solved(), digest_in(client)
    spoil(profile)
    new = digest_in(client)
    assert new != old
    assert solved(**{DIGEST: old})["reload"] is True  # another tab, which shows the old one
    second = solved(**{DIGEST: new})
    assert second["variant"]["totals"]["ms"] == pytest.approx(1.5 * first["variant"]["totals"]["ms"])
    assert client.post("/api/save", json=QUESTION | {"name": "p"}, headers={DIGEST: new}).status_code == 200


def digest_in(client: TestClient) -> str:
    text = client.get(f"/?token={SECRET}").text
    return text.split('"live":"', 1)[1].split('"', 1)[0]


def test_a_touched_profile_is_the_same(client: TestClient, profile: Path) -> None:
    os.utime(profile, (1, 1))
    assert client.post("/api/solve", json=QUESTION).status_code == 200


def test_a_deleted_profile_is_one_line(client: TestClient, profile: Path) -> None:
    profile.unlink()
    for path, body in ASKING:
        found = client.post(path, json=body)
        assert found.status_code == 410 and "put the profile back" in found.json()["error"]
    assert "put the profile back" in client.get(f"/?token={SECRET}").json()["error"]


@pytest.mark.parametrize(("path", "name"), [("/api/solve", "answer"), ("/api/curve", "curve")])
def test_of_many_requests_the_newest_is_answered(
    state: ExplorerState, monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    begun, go_on, calls = threading.Event(), threading.Event(), []
    work: Callable[..., Any] = getattr(server, name)

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        begun.set()
        assert go_on.wait(30)
        return work(*arguments)

    monkeypatch.setattr(server, name, counted)

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app_of(state))
        async with httpx.AsyncClient(transport=transport, base_url=HERE, headers=HEADERS) as asking:

            def post(page: str) -> Any:
                body = QUESTION if name == "answer" else QUESTION["asked"]
                return asyncio.create_task(asking.post(path, json=body, headers={PAGE: page}))

            tasks = [post("a")]
            await asyncio.to_thread(begun.wait, 30)
            tasks += [post("a") for _ in range(49)]
            tasks.append(post("b"))  # another tab has a place of its own
            await asyncio.wait(tasks[1:49], timeout=30)
            go_on.set()
            return [(await task).status_code for task in tasks]

    codes = asyncio.run(ask())
    assert len(calls) == 3
    assert codes[0] == 409  # what nobody waits for ends before it is whole
    assert codes[1:-2] == [409] * 48 and codes[-2:] == [200, 200]


def test_a_lane_keeps_nothing_of_pages_that_are_gone() -> None:
    lane = Lane()
    assert [lane.run(str(page), lambda still: 1) for page in range(5)] == [1] * 5
    with pytest.raises(ZeroDivisionError):
        lane.run("p", lambda still: 1 // 0)
    assert not lane._newest and not lane._open and not lane._running
    with pytest.raises(OutdatedError):
        lane.run("p", lambda still: (lane._newest.update(p=99), still()))


def test_a_body_that_does_not_arrive_is_refused(state: ExplorerState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SLOWEST", 0.05)
    sent: list[Any] = []

    async def never() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = HEADERS | {"host": "127.0.0.1:8000", "content-length": "99", "content-type": "application/json"}
    scope = {
        "type": "http", "method": "POST", "path": "/api/solve", "query_string": b"", "scheme": "http", "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()], "http_version": "1.1",
        "raw_path": b"/api/solve", "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(app_of(state)(scope, never, send), 30))
    assert sent[0]["status"] == 408 and b"was not whole" in sent[1]["body"]


class Sent:
    """A connection of uvicorn's, as far as `LocalServer` reads it."""

    def __init__(self, cycle: Any) -> None:
        self.cycle, self.transport, self.aborted = cycle, self, False

    def abort(self) -> None:
        self.aborted = True


def test_connections_that_send_nothing_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    from bitplan.planner.page import local

    monkeypatch.setattr(local, "SLOWEST", 1e9)
    silent, busy = Sent(None), Sent(type("Cycle", (), {"response_complete": False}))
    one = LocalServer(uvicorn.Config(lambda: None))
    one.server_state.connections = {silent, busy}  # type: ignore[assignment]
    assert _is_idle(silent) and not _is_idle(busy)
    asyncio.run(one.on_tick(1))
    assert not silent.aborted
    monkeypatch.setattr(local, "SLOWEST", -1.0)
    asyncio.run(one.on_tick(1))
    assert silent.aborted and not busy.aborted


@pytest.mark.parametrize(
    "error", [SystemExit(0), MemoryError(), RuntimeError()], ids=lambda error: type(error).__name__
)
def test_a_painter_that_fails_is_free_again(error: BaseException, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    painter, done = Painter(PaintOptions()), threading.Event()

    def make() -> Any:
        done.set()
        raise error

    painter.start(make, "", 0)
    assert done.wait(30)
    for thread in threading.enumerate():
        if thread.name.endswith("(_run)"):
            thread.join(30)
    assert painter.picture.state == "failed" and painter.picture.error.startswith(type(error).__name__)
    painter.start(make, "", 0)


def test_what_the_server_does_not_foresee_is_one_line(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> Any:
        raise KeyError("x")

    monkeypatch.setattr(server, "answer", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = client.post("/api/solve", json=QUESTION)
    assert found.status_code == 500 and found.json()["error"].startswith("KeyError: 'x'; the full report is in ")
    assert "Traceback" in next(tmp_path.glob("bitplan-*.txt")).read_text()
    assert capfd.readouterr() == ("", "")


def test_words_that_are_not_asked_are_refused(client: TestClient) -> None:
    for name in ("slack", "kernels"):
        found = client.post("/api/solve", json={"asked": {name: 0.1}})
        assert found.status_code == 422 and name in found.json()["error"]
    assert client.post("/api/solve", json={"asked": {"bits": 6}}).json()["limits"]


HALF = (b"", b"POST /api/solve HT",
        b"POST /api/solve HTTP/1.1\r\nhost: 127.0.0.1:%d\r\norigin: http://127.0.0.1:%d\r\n"
        b"x-bitplan-token: %s\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")  # fmt: skip


@pytest.mark.parametrize("half", HALF, ids=["nothing", "half a line", "half a body"])
def test_an_interrupt_ends_it_in_one_line_whatever_is_half_sent(profile: Path, half: bytes) -> None:
    command = [sys.executable, "-m", "bitplan", "explore", str(profile), "--port", "0"]
    with (
        silenced(),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None and process.stderr is not None
        address = process.stdout.readline().split()[-1]
        port, token = int(address.split(":")[2].split("/")[0]), address.split("=")[1]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(half % (port, port, token.encode()) if b"%" in half else half)
            with socket.create_connection(("127.0.0.1", port)) as other:  # answered: so the first one has arrived
                other.sendall(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
                assert other.recv(12) == b"HTTP/1.1 403"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "") and out.splitlines()[-1] == "stopped"
