"""How ranks find one another, and how long they wait for one another."""

import os
import socket
import time
from datetime import timedelta

from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from fiber_cli.errors import UserError
from fiber_cli.printing import say

#: Seconds that a rank waits for others, to begin and in a collective, unless FIBER_TIMEOUT names others.
TIMEOUT_SECONDS = 1800.0
#: Seconds that ranks wait for the first one while it alone works, such as on scores; at least the other timeout.
ALONE_SECONDS = 12 * 3600.0
#: Seconds after which a rank says for whom it waits.
PATIENCE_SECONDS = 10.0
POLL_SECONDS = 0.1


def timeout_seconds() -> float:
    """How long a rank waits for others. UserError where FIBER_TIMEOUT is no number of seconds."""
    named = os.environ.get("FIBER_TIMEOUT")
    if not named:
        return TIMEOUT_SECONDS
    try:
        seconds = float(named)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 1e7:
        raise UserError(f"FIBER_TIMEOUT={named!r}: give the seconds that ranks wait for one another, such as 3600")
    return seconds


def host() -> str:
    """This machine's name."""
    return socket.gethostname()


def meet(rank: int, world: int, address: str, port: int) -> Store:
    """The store of a group, once all its ranks are there; rank 0 serves it at `address`:`port`, unless torchrun does.

    After a moment of waiting one rank says on standard error for whom. UserError where some do not come in time.
    """
    meeting = _Meeting(rank, world, address, port)
    store = meeting.store()
    # torchrun's store outlives an attempt.
    prefix = f"fiber/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/here"
    store.set(f"{prefix}/{rank}", host())
    missing = list(range(world))
    while True:
        missing = [each for each in missing if not store.check([f"{prefix}/{each}"])]
        if not missing:
            return store
        meeting.wait_for(missing, speaks=rank < missing[0] or all(each in missing for each in range(rank)))


class _Meeting:
    """The wait of one rank for the others."""

    def __init__(self, rank: int, world: int, address: str, port: int):
        self.rank, self.world, self.address, self.port = rank, world, address, port
        self.seconds = timeout_seconds()
        self.began = time.monotonic()
        self.has_spoken = False

    def store(self) -> Store:
        """Connected to, once it is served. A wait in Python: one in torch would not answer signals."""
        is_torchruns = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        serves = self.rank == 0 and not is_torchruns
        while not serves and not self._is_served():
            self.wait_for([0], speaks=True)
        try:
            return TCPStore(
                self.address,
                self.port,
                self.world,
                is_master=serves,
                timeout=timedelta(seconds=self.seconds),
                wait_for_workers=False,
                multi_tenant=True,
            )
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"rank {self.rank} on {host()}: no meeting at {self.address}:{self.port} ({reason}); set MASTER_ADDR "
                "to rank 0's machine and MASTER_PORT to a port that is free there"
            ) from None

    def _is_served(self) -> bool:
        try:
            socket.create_connection((self.address, self.port), timeout=5).close()
        except OSError:
            return False
        return True

    def wait_for(self, missing: list[int], *, speaks: bool) -> None:
        """A moment of the wait. UserError once it has taken too long."""
        waited = time.monotonic() - self.began
        if waited > self.seconds:
            raise UserError(
                f"rank {self.rank} on {host()}: {ranks_in_words(missing)} of {self.world} did not come to "
                f"{self.address}:{self.port} within {self.seconds:g} s (FIBER_TIMEOUT): {_MEND}"
            )
        if waited > PATIENCE_SECONDS and speaks and not self.has_spoken:
            self.has_spoken = True
            say(
                f"rank {self.rank} on {host()} waits at {self.address}:{self.port} for {ranks_in_words(missing)} of "
                f"{self.world}, {self.seconds:g} s at most (FIBER_TIMEOUT)"
            )
        time.sleep(POLL_SECONDS)


_MEND = "see what they print, and that all are started with the same MASTER_ADDR and MASTER_PORT"


def ranks_in_words(ranks: list[int]) -> str:
    """Such as "rank 3" or "ranks 0 to 3, 5"."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    parts = []
    for run in runs:
        parts.append(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}")
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(parts)}"
