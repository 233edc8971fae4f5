"""When a request is sent again."""

from __future__ import annotations

import random
import time

from ._problem import Problem

_LONGEST = 30.0
"""Longest pause that a server does not ask for, in seconds."""


class Retries:
    """The tries of one request, for `patience` seconds from now on."""

    def __init__(self, patience: float) -> None:
        self._end = time.monotonic() + patience
        self._tries = 0

    def pause(self, problem: Problem) -> float:
        """Returns the time to wait before another try, in seconds. Raises a problem that stays."""
        if problem.status not in (429, 503):
            raise problem
        least = problem.retry_after
        if least is None:
            least = min(0.25 * 2**self._tries, _LONGEST)
        # Spread, so that clients that were refused together do not come back together.
        pause = least * random.uniform(1.0, 1.5)
        self._tries += 1
        if time.monotonic() + pause > self._end:
            raise problem
        return pause
