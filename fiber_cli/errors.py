"""What a user can do wrong, and how a run ends."""

from importlib import import_module
from types import ModuleType

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
#: A signal asked the run to stop; everything is saved and `--resume` continues it (EX_TEMPFAIL of sysexits.h).
EXIT_STOPPED = 75


def first_names(names: list[str], limit: int = 8) -> str:
    """So many of the names as an error message shows."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + more


class UserError(ValueError):
    """Input that cannot be used. The message says what is wrong, where, and how to mend it.

    The command line prints the message without a traceback and exits with `exit_code`.
    """

    exit_code = EXIT_FAILED
    #: Whether this process tells the user; of several ranks with one error one does.
    is_told_here = True
    #: Whether it comes of another rank's end, which has a reason of its own.
    follows = False


class SharedError(UserError):
    """An error that ends all ranks at once. is_told_here: whether this rank tells the user, which one of them does."""

    def __init__(self, message: str, exit_code: int, *, is_told_here: bool):
        super().__init__(message)
        self.exit_code = exit_code
        self.is_told_here = is_told_here


class DeclarationError(UserError, TypeError):
    """A declaration of a task or a format that is not whole or not true of its module, in words for the contributor who
    wrote it; like other errors of its reader it is one line at the command line."""


def optional(package: str, mend: str) -> ModuleType:
    """A package that is not always installed; UserError that says how to mend it where it is not."""
    try:
        return import_module(package)
    except ImportError:
        raise UserError(mend) from None
