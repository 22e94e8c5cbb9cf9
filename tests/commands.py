"""Running the `fiber` command inside a test's process."""

import pytest

from fiber_cli.cli.app import main


def command(capsys, *argv) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `fiber ARGV`."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in argv])
    out, err = capsys.readouterr()
    return end.value.code or 0, out, err
