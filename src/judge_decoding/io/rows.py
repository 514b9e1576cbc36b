"""The error for unusable rows of a file or a data set."""


class RowError(Exception):
    """A row is unusable; the message gives the reason, to be shown after the row's number."""
