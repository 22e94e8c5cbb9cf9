"""Seeds as a function of place, so that no generator's state needs saving."""

import numpy as np


def mix(*numbers: int) -> int:
    """A seed below 2**63 that is a function of the numbers, different for every other tuple."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
