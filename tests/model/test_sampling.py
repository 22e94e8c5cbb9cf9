"""Captions are drawn as often as the model has it."""

import math

import torch
from small_captioner import CLS, MASK, SPECIAL, log_probs, make_captioner, memory_of, unpadded

from fiber_cli.model.sampling import sample


def test_samples_follow_the_model():
    captioner = make_captioner(vocab=8, sep=1.0)
    memory = memory_of(captioner, 2)
    torch.manual_seed(0)
    captions = sample(captioner, memory, samples=6000, max_length=5, special=SPECIAL)
    assert captions.shape == (12000, 5)
    assert (captions[:, 0] == CLS).all()
    for i in range(2):
        of_image = captions[i * 6000 : (i + 1) * 6000]
        for prefix in ([], [5], [5, 6]):
            after = 1 + len(prefix)
            chosen = of_image[(of_image[:, 1:after] == torch.tensor(prefix)).all(1), after]
            share = torch.bincount(chosen, minlength=8) / len(chosen)
            expected = log_probs(captioner, memory[i], prefix).exp()
            assert (share - expected).abs().max() < 4 * 0.5 / math.sqrt(len(chosen))
    for caption in captions[:200, 1:]:
        unpadded(caption)  # holds that padding alone follows the end


def test_mask_token_is_never_drawn():
    captioner = make_captioner()
    with torch.no_grad():
        captioner.mlm.bias[MASK] = 1000.0
    captions = sample(captioner, memory_of(captioner, 3), samples=4, max_length=12, special=SPECIAL)
    assert (captions[:, 1:] != MASK).all()
