"""A campaign of faults against the command line: kills, full disks, flipped bits, bad inputs, outputs over inputs,
shared folders, ranks that differ or die.

    python -m benchmarks.faults --json benchmarks/results/faults.json
    python -m benchmarks.faults --only kills,inputs --seed 3 --trials 20

The program is a black box here: a trial is a command line, what was done to its surroundings, and what is left. `kinds`
says what must hold, each of the other files one part of the campaign. Small pictures, shards and annotations are those
that the tests make, from tests/.
"""

import sys
from pathlib import Path

#: The root of the repository.
ROOT = Path(__file__).parents[2]

sys.path.append(str(ROOT / "tests"))
