"""What has no place in our weights has a reason, in both stages, whatever the task."""

import pytest
import torch
from published_states import SMALL, published_names

from fiber_cli.checkpoints.published.stage import STAGES
from fiber_cli.tasks import published_forms


@pytest.mark.parametrize("kind", published_forms())
def test_an_entry_is_left_out_without_a_reason(kind):
    stage = STAGES[published_forms()[kind][1].stage]
    with torch.device("meta"):
        ours, published = published_names(kind)
    reasons = stage.reasons(published, SMALL, ours)
    weights = stage.from_published(published, SMALL, ours)
    assert weights.keys() == ours.keys()
    assert len(reasons) + len(weights) == len(published)
    assert all(reasons.values())
    assert stage.landmark in published
    if stage.discarded:
        assert stage.reasons(stage.discarded, SMALL, ours).keys() == set(stage.discarded)
