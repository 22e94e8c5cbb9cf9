"""What a user can do wrong, and how a run ends."""

from importlib import import_module
from types import ModuleType

from fiber_cli.characters import one_line

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
#: A signal asked the run to stop; everything is saved and `--resume` continues it (EX_TEMPFAIL of sysexits.h).
EXIT_STOPPED = 75
#: Ctrl-C, as shells have it.
EXIT_INTERRUPTED = 130


#: What reading values of a wrong type or size raises: they are input that cannot be used, not faults of the program.
WRONG_CONTENT = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


def first_names(names: list[str], limit: int = 8) -> str:
    """So many of the names as an error message shows."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "none") + more


class UnseenWords(UserWarning):
    """Of words that no text of a checkpoint's training had."""


class UserError(ValueError):
    """Input that cannot be used. The message says what is wrong, where, and how to mend it; details, if there are any,
    stand below it, a line each. Names in both may be any, see `characters.one_line`.

    The command line prints the message without a traceback and exits with `exit_code`.
    """

    exit_code = EXIT_FAILED
    #: Whether this process tells the user; of several ranks with one error one does.
    is_told_here = True
    #: Whether it comes of another rank's end, which has a reason of its own.
    follows = False

    def __init__(self, message: str, *details: str):
        super().__init__(message, *details)

    def __str__(self) -> str:
        return "\n  ".join(map(one_line, self.args))

    @property
    def message(self) -> str:
        """What is wrong, without the details."""
        return one_line(self.args[0])

    @property
    def details(self) -> tuple[str, ...]:
        """A line for each of the things that are wrong, where there are several."""
        return self.args[1:]


class SharedError(UserError):
    """An error that ends all ranks at once. is_told_here: whether this rank tells the user, which one of them does."""

    def __init__(self, message: str, exit_code: int, *details: str, is_told_here: bool):
        super().__init__(message, *details)
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
