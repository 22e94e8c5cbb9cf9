"""Where a run stands."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint. `truncated` counts this rank's cut captions, `stale` the
    validations since the best, and `drops` how often the learning rate has fallen for that."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    truncated: int = 0
    best: dict[str, Any] | None = None
    stale: int = 0
    drops: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def is_best(self, metric: str, value: float, *, patience: int) -> bool:
        """Notes a validation: the best value so far of the metric, or one more without a better one, of which every
        `patience` make a drop."""
        best = self.best
        if best is not None and best["metric"] == metric and value <= best["value"]:
            self.stale += 1
            if self.stale % patience == 0:
                self.drops += 1
            return False
        self.stale = 0
        self.best = {"metric": metric, "value": value, "step": self.step}
        return True
