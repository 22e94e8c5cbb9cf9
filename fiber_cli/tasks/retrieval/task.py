"""Fine-tuning for retrieval with ITC, ITM or both (paper section 3.3)."""

from typing import Any

from fiber_cli.model.config import FiberConfig
from fiber_cli.tasks.coarse.task import CoarseTask


class RetrievalTask(CoarseTask):
    """Coarse-grained pre-training without MLM; ITM alone draws random negatives. settings: those of `CoarseTask`."""

    def __init__(self, config: FiberConfig, **settings: Any):
        super().__init__(config, mlm=0.0, **settings)
