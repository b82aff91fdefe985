"""Who may talk to a server on this machine: its own page alone. Other pages in the same browser may not, nor other
users of the machine, who do not know the token.
"""

from __future__ import annotations

import hmac
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")  # by which it may be called, at any port: one may be forwarded by ssh
TOKEN = "x-bitplan-token"  # the header
LARGEST = 2**21  # bytes of a request


HEADERS = {
    "cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin", "cross-origin-opener-policy": "same-origin",
}  # fmt: skip


class Guard:
    """Middleware: refuses what does not come from the page that this run served."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("content-security-policy", "default-src 'none'; frame-ancestors 'none'")
            await send(message)

        refused = refusal(scope, self.token)
        if refused is None:
            await self.app(scope, receive, sealed)
            return
        status, error = refused
        await JSONResponse({"error": error}, status)(scope, receive, sealed)


def refusal(scope: MutableMapping[str, Any], token: str) -> tuple[int, str] | None:
    """Status and sentence of why a request is refused, or None."""
    headers = Headers(scope=scope)
    given = headers.get(TOKEN, "")
    if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
    if not hmac.compare_digest(given.encode(), token.encode()):
        return 403, "this is not the page of this run; open the address that `bitplan explore` printed"
    if scope["method"] in ("GET", "HEAD"):
        return None
    if headers.get("origin", "") not in (f"http://{headers.get('host', '')}",):
        return 403, f"a request from {headers.get('origin', 'no page')!r} is refused; ask from this run's own page"
    length = headers.get("content-length", "")
    if not length.isascii() or not length.isdigit():
        return 411, "a request must say how long it is"
    if int(length) > LARGEST:
        return 413, f"a request of {length} bytes is too long; {LARGEST} are allowed"
    return None
