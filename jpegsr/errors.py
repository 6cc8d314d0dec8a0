"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something the caller can put right: the message says what is wrong and what to do.

    The command line prints it as a single line on stderr and exits with `exit_status`; library callers can catch it. Every
    other exception is a defect of this package and keeps its traceback.
    """

    exit_status = 1


class DamagedDataError(UserError):
    """Stored data is not what was written: unlike a broken picture among many, nothing to pass over with a warning."""


def first_line(error: Exception) -> str:
    """What an exception of another library says, cut to a line."""
    return next(iter(str(error).splitlines()), repr(error))
