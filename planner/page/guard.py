"""Lets only the server's own page talk to it: no other page in the same browser, and no other user of the machine, who
does not know the token.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")  # names of the server, with any port, because ssh may forward one
TOKEN = "x-bitplan-token"  # the header that holds the token
LARGEST = 2**21  # bytes of the largest request
SLOWEST = 10.0  # seconds in which a request must arrive


HEADERS = {
    "cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin", "cross-origin-opener-policy": "same-origin",
}  # fmt: skip


class Guard:
    """Middleware that refuses requests which do not come from the page of this run."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("content-security-policy", "default-src 'none'; frame-ancestors 'none'")
            await send(message)

        reason = refusal(scope, self.token)
        if reason is None:
            await self.app(scope, _in_time(receive), send_with_headers)
            return
        status, error = reason
        await JSONResponse({"error": error}, status)(scope, receive, send_with_headers)


def _in_time(receive: Receive) -> Receive:
    """Receives the parts of a request's body, and refuses one that is not whole after `SLOWEST` seconds."""
    clock = asyncio.get_running_loop().time
    deadline: float | None = clock() + SLOWEST

    async def received() -> Message:
        nonlocal deadline
        if deadline is None:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(deadline - clock(), 0.0))
        except TimeoutError:
            raise HTTPException(408, f"the request was not whole after {SLOWEST:g} s; send it again") from None
        if not message.get("more_body"):
            deadline = None  # what is received from now on is the end of the connection
        return message

    return received


def refusal(scope: MutableMapping[str, Any], token: str) -> tuple[int, str] | None:
    """The status and the sentence with which a request is refused, or None."""
    headers = Headers(scope=scope)
    sent = headers.get(TOKEN, "")
    if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
        sent = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
    if not hmac.compare_digest(sent.encode(), token.encode()):
        return 403, "this is not the page of this run; open the address that `bitplan explore` printed"
    if scope["method"] in ("GET", "HEAD"):
        return None
    if headers.get("origin", "") not in (f"http://{headers.get('host', '')}",):
        return 403, f"a request from {headers.get('origin', 'no page')!r} is refused; ask from this run's own page"
    length = headers.get("content-length", "")
    if not length.isascii() or not length.isdigit():
        return 411, "a request must state its length"
    if int(length) > LARGEST:
        return 413, f"a request of {length} bytes is too long; {LARGEST} are allowed"
    return None
