"""Types of options and of answers, as the HTTP API has them."""

from ._api import *  # noqa: F403
