"""The likelihood of texts: only labelled positions count, each as much as any other."""

import pytest
import torch
from small_captioner import CLS, make_captioner, memory_of

from fiber_cli.tasks.token_losses import NO_LABEL, token_losses


def test_a_position_without_a_label_counts():
    captioner = make_captioner()
    memory = memory_of(captioner, 2)
    ids = torch.tensor([[CLS, 5, 6, 7], [CLS, 8, 9, 10]])
    labels = torch.tensor([[NO_LABEL, NO_LABEL, 7, 4], [NO_LABEL, 9, NO_LABEL, NO_LABEL]])
    losses = token_losses(captioner, memory, ids, torch.ones_like(ids, dtype=torch.bool), labels)
    assert torch.equal(losses.real, labels != NO_LABEL)
    assert torch.equal(losses.entropies != 0, losses.real)
    logits = captioner.mlm(captioner.states(memory, ids)).detach()
    expected = [-float(logits[row, at].log_softmax(0)[label]) for row, at, label in ((0, 2, 7), (0, 3, 4), (1, 1, 9))]
    assert losses.mean().item() == pytest.approx(sum(expected) / 3, rel=1e-4)


def test_no_label_at_all_is_no_number():
    captioner = make_captioner()
    ids = torch.tensor([[CLS, 5]])
    labels = torch.full_like(ids, NO_LABEL)
    losses = token_losses(captioner, memory_of(captioner, 1), ids, torch.ones_like(ids, dtype=torch.bool), labels)
    assert losses.mean().item() == 0
