"""Errors of the application and the one place that turns them into answers."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse


class AppError(Exception):
    status = 400
    code = "bad_request"

    def __init__(self, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = headers or {}


class NotFound(AppError):
    status, code = 404, "not_found"


class Conflict(AppError):
    status, code = 409, "conflict"


class Forbidden(AppError):
    status, code = 403, "forbidden"


class Unauthorized(AppError):
    status, code = 401, "unauthorized"

    def __init__(self, message: str) -> None:
        super().__init__(message, {"WWW-Authenticate": "Bearer"})


class RateLimited(AppError):
    status, code = 429, "rate_limited"


def install(app: FastAPI) -> None:
    @app.exception_handler(AppError)
    async def answer(request: Request, error: AppError) -> JSONResponse:
        return JSONResponse({"error": error.code, "message": str(error)}, status_code=error.status, headers=error.headers)
