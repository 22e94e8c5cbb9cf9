"""The entry point: signals are answered before anything that takes time is imported."""

import os
import sys
from contextlib import suppress
from typing import NoReturn

from fiber_cli.stop_signals import Ending


def main() -> None:
    """Run the command line and exit."""
    ending = Ending(sys.argv[1:])
    ending.install()
    from fiber_cli.cli.app import main as run

    try:
        run()
    except SystemExit as end:
        ending.exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if ending.exit_code and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            _end_rank(ending.exit_code)
        raise


def _end_rank(code: int) -> NoReturn:
    """One of several ranks that has failed ends at once: its connections to the others, which may be gone, would hold
    it for seconds, or abort it."""
    import multiprocessing
    import shutil
    from multiprocessing.util import get_temp_dir

    for reader in multiprocessing.active_children():
        reader.kill()
    shutil.rmtree(get_temp_dir(), ignore_errors=True)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
