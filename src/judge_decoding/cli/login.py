"""The user's name, for those who label."""

from __future__ import annotations

from getpass import getuser


def login() -> str:
    """The login name; "annotator" for a user id without a name, as in some containers."""
    try:
        return getuser()
    except (KeyError, OSError):
        return "annotator"
