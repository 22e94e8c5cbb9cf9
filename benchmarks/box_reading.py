"""What workers of `large_data` do; they find it by its name, which the script that is run has not."""

import random
from pathlib import Path
from typing import Any

#: Workers of a rank, and the samples that each reads before its memory is looked at.
WORKERS, READ = 2, 20_000


def own_memory(process: int | str = "self") -> dict[str, float]:
    """Uss and Pss in MiB."""
    sizes: dict[str, int] = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
        name, size = line.split()[:2]
        sizes[name.rstrip(":")] = int(size)
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return {"uss_mib": private / 1024, "pss_mib": sizes["Pss"] / 1024}


class Boxes:
    """The boxes of a source in random order, as a worker reads them, and at the end its memory."""

    def __init__(self, source: Any):
        self.source = source

    def __len__(self) -> int:
        return WORKERS

    def __getitem__(self, worker: int) -> dict[str, float]:
        rng = random.Random(worker)
        for _ in range(READ):
            i = rng.randrange(len(self.source))
            self.source.key(i)
            self.source.regions(i)
        return own_memory()


def as_they_are(samples: list[Any]) -> list[Any]:
    """The batch of some samples."""
    return samples
