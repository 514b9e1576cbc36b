"""Rows of a file or a data set that cannot be used."""


class RowError(Exception):
    """A row that is not what was wanted; the message says why, to go behind its number."""
