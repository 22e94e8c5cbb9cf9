"""How far a long pass is, on standard error."""

import sys
from typing import Any

from tqdm import tqdm

from fiber_cli.distributed import collectives

#: Seconds between the lines where there is no terminal.
REPORT_EVERY = 30.0


def progress_bar(total: int, what: str, *, hidden: bool = False) -> "tqdm[Any]":
    """What the first rank has done of so many: a bar on a terminal, else a line now and then. what: they are, in the
    plural."""
    hidden = hidden or not collectives.is_main()
    if sys.stderr.isatty():
        return tqdm(total=total, unit=f" {what}", disable=hidden, leave=False, dynamic_ncols=True)
    line = f"{what} {{n_fmt}}/{{total_fmt}}  {{rate_noinv_fmt}}  ETA {{remaining}}\n"
    return tqdm(
        total=total,
        unit=f" {what}",
        disable=hidden,
        bar_format=line,
        mininterval=REPORT_EVERY,
        maxinterval=1e9,
        miniters=1,
    )
