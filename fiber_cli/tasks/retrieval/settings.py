"""Settings of fine-tuning for retrieval."""

from dataclasses import dataclass
from typing import Literal

from fiber_cli.tasks.coarse.settings import PairSettings


@dataclass(frozen=True)
class RetrievalSettings(PairSettings):
    """Fine-tuning for retrieval with ITC, ITM or both (paper section 3.3)."""

    name: Literal["retrieval"]
