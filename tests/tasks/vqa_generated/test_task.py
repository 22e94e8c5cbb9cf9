"""VQA by generation: its loss by hand, and answers that go on from their own question alone."""

import math

import pytest
import torch
from small_captioner import CLS, IDS, PAD, SEP, random_pixels, small_config

from fiber_cli.errors import UserError
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.vqa_generated.settings import GeneratedVqaSettings
from fiber_cli.tasks.vqa_generated.task import GeneratedVqaTask

QUESTIONS = [[CLS, 5, 6, SEP], [CLS, 7, SEP], [CLS, 8, 9, 10, 11, SEP]]
ANSWERS = [[12, SEP], [13, 14, SEP], [15, SEP]]


def make_task(**settings) -> GeneratedVqaTask:
    torch.manual_seed(0)
    task = GeneratedVqaTask(small_config(30), **IDS, **{"answer_length": 5, "beam": 1} | settings)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return task.eval()


def padded(rows: list[list[int]], value: int, length: int = 10) -> torch.Tensor:
    return torch.tensor([row + [value] * (length - len(row)) for row in rows])


def asked(questions: list[list[int]]) -> dict[str, torch.Tensor]:
    ids = padded(questions, PAD)
    return {"pixels": random_pixels(len(questions)), "ids": ids, "mask": ids != PAD}


@torch.no_grad()
def next_log_probs(task, pixels, tokens: list[int]) -> torch.Tensor:
    """By a pass over the whole text."""
    captioner = task.captioner
    states = captioner.states(captioner.memory(normalize(pixels)), torch.tensor([tokens]))
    return captioner.mlm(states[0, -1]).log_softmax(0)


def test_loss_by_hand():
    """The mean over the answers' tokens of their cross-entropy; what the questions say is not learned."""
    task = make_task()
    rows = [question + answer for question, answer in zip(QUESTIONS, ANSWERS, strict=True)]
    labels = [[-100] * (len(q) - 1) + answer for q, answer in zip(QUESTIONS, ANSWERS, strict=True)]
    batch = asked(QUESTIONS) | {"ids": padded(rows, PAD), "labels": padded(labels, -100)}
    batch["mask"] = batch["ids"] != PAD
    losses = []
    for number, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        for position, token in enumerate(answer):
            before = question + answer[:position]
            losses.append(-float(next_log_probs(task, batch["pixels"][number : number + 1], before)[token]))
    told = task(batch)
    assert told["loss"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert not told["vqa_loss"].requires_grad
    told["loss"].backward()
    assert all(parameter.grad is not None for parameter in task.mlm.parameters())


def test_a_greedy_answer_is_not_the_most_probable_continuation_of_its_question():
    task = make_task()
    batch = asked(QUESTIONS)
    rows = task.predict(batch)
    assert rows.shape == (3, 5)
    for number, (question, row) in enumerate(zip(QUESTIONS, rows.tolist(), strict=True)):
        tokens = list(question)
        for token in row:
            probs = next_log_probs(task, batch["pixels"][number : number + 1], tokens)
            probs[IDS["mask_id"]] = -math.inf
            best = int(probs.argmax())
            if best in (SEP, PAD):
                assert token == PAD
                break
            assert token == best
            tokens.append(token)


@pytest.mark.parametrize("beam", [1, 3])
def test_an_answer_depends_on_the_questions_beside_it(beam):
    task = make_task(beam=beam)
    batch = asked(QUESTIONS)
    together = task.predict(batch)
    for number in range(3):
        alone = {name: values[number : number + 1] for name, values in batch.items()}
        assert torch.equal(task.predict(alone)[0], together[number])
        longer = torch.cat([alone["ids"], torch.full((1, 4), PAD)], 1)
        padded_more = {"pixels": alone["pixels"], "ids": longer, "mask": longer != PAD}
        assert torch.equal(task.predict(padded_more)[0], together[number])
    changed = batch | {"ids": batch["ids"].roll(1, 0), "mask": batch["mask"].roll(1, 0)}
    assert not torch.equal(task.predict(changed), together)


def test_question_and_answer_are_longer_than_the_positions(tokenizer):
    context = TaskContext(GeneratedVqaSettings("vqa_generated"), small_config(len(tokenizer)), tokenizer, 53)
    with pytest.raises(UserError, match=r"task\.answer_length=10: with model\.text_length=53 these are 63 tokens"):
        GeneratedVqaTask.from_context(context)
