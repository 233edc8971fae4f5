"""The errors of a server."""

from __future__ import annotations

import math
from typing import Any

import httpx


class Problem(Exception):
    """An answer with an error: `application/problem+json` (RFC 9457).

    `status` is the HTTP status, `code` the kind of the error such as `invalid_option`, `detail` says what is wrong and
    what to do. `limit` is the limit that was exceeded, if any: its name, its value, and the flag of the server that
    sets it. `retry_after` is the time in seconds after which the same request may succeed.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        limit: dict[str, Any] | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        # All of them, so that a problem can be pickled.
        super().__init__(status, code, detail, limit, request_id, retry_after)
        self.status = status
        self.code = code
        self.detail = detail
        self.limit = limit
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.detail}"

    @classmethod
    def of(cls, response: httpx.Response) -> Problem:
        """Reads the problem that a response states."""
        try:
            stated = response.json()
        except ValueError:
            stated = {}
        if not isinstance(stated, dict):
            stated = {}
        detail = stated.get("detail") or response.text[:200] or response.reason_phrase
        if response.is_redirect:
            detail = f"the server is at {response.headers.get('location')}"
        return cls(
            response.status_code,
            stated.get("code", "unknown"),
            detail,
            stated.get("limit"),
            response.headers.get("x-request-id"),
            _seconds(response.headers.get("retry-after")),
        )


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
