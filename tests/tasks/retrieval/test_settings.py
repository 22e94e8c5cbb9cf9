"""Settings of fine-tuning for retrieval."""

import dataclasses

from fiber_cli.tasks.coarse.settings import CoarseSettings
from fiber_cli.tasks.retrieval.settings import RetrievalSettings


def test_retrieval_has_other_settings_than_pre_training_without_mlm():
    retrieval = {field.name for field in dataclasses.fields(RetrievalSettings)}
    coarse = {field.name for field in dataclasses.fields(CoarseSettings)}
    assert coarse - retrieval == {"mlm", "mlm_pairs", "mlm_probability"}
    assert retrieval <= coarse
