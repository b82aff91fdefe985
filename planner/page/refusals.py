"""What the server answers where a request fails: one line, in the same words as on the command line."""

from __future__ import annotations

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest

from bitplan.planner.crash import where_reported
from bitplan.planner.errors import is_own
from bitplan.planner.page.lane import OutdatedError
from bitplan.planner.page.painter import BusyError
from bitplan.planner.page.watch import ReplacedError
from bitplan.planner.texts import cause_of, one_line, system_reason

STATUSES: dict[type[Exception], int] = {BusyError: 409, OutdatedError: 409, ReplacedError: 410}


def refused(request: HttpRequest, error: Exception) -> JSONResponse:
    """`{"error": sentence}`, with `reload: true` where opening the page again helps."""
    status, text = _of(error)
    reload = {"reload": True} if isinstance(error, ReplacedError) else {}
    return JSONResponse({"error": one_line(text), **reload}, status)


def _of(error: Exception) -> tuple[int, str]:
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return 422, f"{'.'.join(str(part) for part in first['loc'][1:])}: {first['msg']}"
    if isinstance(error, HTTPException):
        return error.status_code, str(error.detail)
    if is_own(error):
        return STATUSES.get(type(error), 400), one_line(error)
    if isinstance(error, OSError):
        named = f"{error.filename}: " if error.filename else ""
        return 400, f"{named}{system_reason(error)}; check the path, its permissions and the disk"
    return 500, f"{cause_of(error, 300)}; {where_reported(error, 'a request of the explorer')}"
