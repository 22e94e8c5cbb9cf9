"""Captions grow token by token, beside their image."""

import torch
from small_captioner import CLS, MASK, PAD, SEP, SPECIAL, log_probs, make_captioner, memory_of

from fiber_cli.model.captioner import Prompt, Stepper


def test_both_ending_tokens_end_a_caption():
    assert SPECIAL.ends(torch.tensor([CLS, PAD, SEP, MASK, 7])).tolist() == [False, True, True, False, False]


@torch.no_grad()
def test_steps_equal_passes_over_the_whole_text():
    captioner = make_captioner()
    memory = memory_of(captioner, 2)
    stepper = Stepper(captioner, memory, 2, SPECIAL)
    assert stepper.tokens.tolist() == [[CLS]] * 4
    stepper.log_probs()
    stepper.append(torch.tensor([[5, 6], [7, 8]]))
    stepper.log_probs()
    stepper.append(torch.tensor([[9, 10], [11, 12]]), parents=torch.tensor([[1, 1], [0, 1]]))
    captions = [[6, 9], [6, 10], [7, 11], [8, 12]]
    assert stepper.tokens[:, 1:].tolist() == captions
    for number, (row, caption) in enumerate(zip(stepper.log_probs(), captions, strict=True)):
        expected = log_probs(captioner, memory[number // 2], caption)
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-5)
        assert row[MASK] == -torch.inf


@torch.no_grad()
def test_a_prompt_is_gone_on_with_otherwise_than_a_text_that_begins_with_it():
    captioner = make_captioner()
    memory = memory_of(captioner, 3)
    prompts = [[CLS, 5, 6, SEP], [CLS], [CLS, 7, SEP]]
    ids = torch.tensor([prompt + [PAD] * (6 - len(prompt)) for prompt in prompts])
    stepper = Stepper(captioner, memory, 2, SPECIAL, Prompt(ids, ids != PAD))
    assert stepper.tokens.tolist() == [[SEP]] * 2 + [[CLS]] * 2 + [[SEP]] * 2
    stepper.log_probs()
    stepper.append(torch.tensor([[8, 9], [10, 11], [12, 13]]))
    for number, row in enumerate(stepper.log_probs()):
        text = [*prompts[number // 2][1:], 8 + number]
        expected = log_probs(captioner, memory[number // 2], text)
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_images_drop_out_with_their_captions():
    captioner = make_captioner()
    memory = memory_of(captioner, 3)
    stepper = Stepper(captioner, memory, 2, SPECIAL)
    stepper.log_probs()
    stepper.append(torch.tensor([[5, 6], [7, 8], [9, 10]]))
    stepper.keep_images(torch.tensor([False, True, True]))
    assert stepper.tokens[:, 1].tolist() == [7, 8, 9, 10]
    rows = stepper.log_probs()
    for row, image, token in zip(rows, (1, 1, 2, 2), (7, 8, 9, 10), strict=True):
        torch.testing.assert_close(row, log_probs(captioner, memory[image], [token]), atol=1e-5, rtol=1e-5)


def test_captions_are_padded_up_to_a_length():
    captioner = make_captioner()
    stepper = Stepper(captioner, memory_of(captioner, 1), 2, SPECIAL)
    assert stepper.padded(3).tolist() == [[CLS, PAD, PAD]] * 2
