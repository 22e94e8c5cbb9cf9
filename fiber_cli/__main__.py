"""The entry point: signals are answered before anything that takes time is imported."""

import sys

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
        raise


if __name__ == "__main__":
    main()
