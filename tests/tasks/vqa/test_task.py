"""The VQA task: its loss by hand, and what it looks at."""

import math

import pytest
import torch
from small_classifiers import CONFIG, pair_batch, shaken

from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.vqa.settings import VqaSettings
from fiber_cli.tasks.vqa.task import VqaTask


@pytest.fixture
def batch():
    return pair_batch(targets=torch.tensor([[1.0, 0, 0, 0.3, 0], [0, 0.9, 0.6, 0, 0], [0, 0, 0, 0, 0]]))


def test_loss_by_hand(batch):
    """Binary cross-entropy, summed over the answers, averaged over the batch."""
    task = shaken(VqaTask(CONFIG, labels=5))
    logits = task.batch_logits(batch).detach()
    assert logits.shape == (3, 5)
    total, score = 0.0, 0.0
    for row, targets in zip(logits.tolist(), batch["targets"].tolist(), strict=True):
        score += targets[row.index(max(row))] / 3
        for x, t in zip(row, targets, strict=True):
            p = 1 / (1 + math.exp(-x))
            total -= t * math.log(p) + (1 - t) * math.log(1 - p)
    losses = task(batch)
    assert losses["loss"].item() == pytest.approx(total / 3, rel=1e-5)
    assert losses["vqa_score"].item() == pytest.approx(score)
    assert not losses["vqa_loss"].requires_grad
    assert task.predict(batch).tolist() == logits.argmax(1).tolist()
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.vqa.parameters())


def test_image_and_question_count_and_padding_does_not(batch):
    task = shaken(VqaTask(CONFIG, labels=5)).eval()
    logits = task.batch_logits(batch)
    for name in ("pixels", "ids"):
        changed = task.batch_logits(batch | {name: batch[name].roll(1, dims=0)})
        assert (changed - logits).abs().max() > 1e-3
    short = {name: values[2:] for name, values in batch.items()}
    short |= {name: short[name][:, :3] for name in ("ids", "mask")}
    torch.testing.assert_close(task.batch_logits(short), logits[2:], atol=1e-5, rtol=1e-5)


def test_a_context_gives_as_many_labels_as_there_are_answers(tokenizer):
    context = TaskContext(VqaSettings("vqa"), CONFIG, tokenizer, 12, ("yes", "no", "2"))
    assert VqaTask.from_context(context).vqa.fc2.out_features == 3
