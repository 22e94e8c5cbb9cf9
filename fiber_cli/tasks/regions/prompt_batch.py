"""The prompts that a batch of images is asked, as the input of `RegionTask.predict`; for evaluation and inference."""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch

from fiber_cli.data.padding import without_padding
from fiber_cli.errors import UserError
from fiber_cli.model.pixels import pad_batch
from fiber_cli.tasks.regions.prompts import EncodedPrompt, PromptName, build_prompt, encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptBatch(NamedTuple):
    """Prompts, the (image, prompt) pairs to look at, and the number to report for each label of all prompts."""

    prompts: list[EncodedPrompt]
    pairs: list[tuple[int, int]]
    labels: torch.Tensor

    @classmethod
    def all_pairs(cls, prompts: list[EncodedPrompt], images: int) -> Self:
        """Every one of so many images is asked every prompt; labels are numbered through."""
        pairs = [(image, prompt) for image in range(images) for prompt in range(len(prompts))]
        label_count = sum(len(prompt.positive_map) for prompt in prompts)
        return cls(prompts, pairs, torch.arange(label_count))

    def and_own(self, prompts: Sequence[EncodedPrompt], images: Sequence[int], labels: Sequence[Sequence[int]]) -> Self:
        """Some of the images are asked a prompt of their own as well; labels: the numbers to report for each of its."""
        first = len(self.prompts)
        pairs = [(image, first + number) for number, image in enumerate(images)]
        own_labels = torch.tensor(list(chain.from_iterable(labels)), dtype=torch.int64)
        return self._replace(
            prompts=[*self.prompts, *prompts], pairs=[*self.pairs, *pairs], labels=torch.cat([self.labels, own_labels])
        )

    def with_images(self, pixels: Sequence[torch.Tensor], original_sizes: Sequence[torch.Tensor]) -> dict[str, Any]:
        """The batch of images uint8 (3, h, w) and their original sizes, int64 (2,), (height, width).

        Gives `pixels` uint8 (B, 3, H, W), padded; `sizes` and `original_sizes` int64 (B, 2), (height, width); P prompts
        as `ids` int64 and `mask` bool (P, L), L that of the longest; `pairs` int64 (Q, 2), the (image, prompt) to look
        at; labels of all prompts one after another as `positive_map` bool (N, L), with `label_prompt` and `labels`
        int64 (N,): the prompt that names the label, and the number to report for it.
        """
        padded_pixels, sizes = pad_batch(pixels)
        ids, masks, positive_maps, _ = zip(*self.prompts, strict=True)
        label_counts = torch.tensor(list(map(len, positive_maps)))
        label_prompt = torch.repeat_interleave(torch.arange(len(self.prompts)), label_counts)
        batch = {
            "pixels": padded_pixels,
            "sizes": sizes,
            "original_sizes": torch.stack(list(original_sizes)),
            "ids": torch.stack(ids),
            "mask": torch.stack(masks),
            "pairs": torch.tensor(self.pairs),
            "positive_map": torch.cat(positive_maps),
            "label_prompt": label_prompt,
            "labels": self.labels,
        }
        return without_padding(batch, ("ids", "mask", "positive_map"))

    @property
    def truncated(self) -> int:
        """How many prompts were cut."""
        return sum(prompt.truncated for prompt in self.prompts)


def label_prompts(
    names: Sequence[PromptName], tokenizer: "PreTrainedTokenizerBase", text_length: int, chunk: int | str
) -> list[EncodedPrompt]:
    """Prompts that together name all labels in their order; chunk: see `chunk_labels`."""
    encoded = []
    for labels in chunk_labels(names, tokenizer, text_length, chunk):
        prompt = build_prompt(names[labels[0] : labels[-1] + 1])
        encoded.append(encode_prompt(tokenizer, prompt, text_length))
    return encoded


def chunk_labels(
    names: Sequence[PromptName], tokenizer: "PreTrainedTokenizerBase", length: int, chunk: int | str
) -> list[list[int]]:
    """Labels in consecutive groups whose prompts fit into `length` tokens whole.

    chunk: at most so many labels a group (what does not fit is split further), or "auto": as many as fit.
    """

    def token_count(first: int, last: int) -> int:
        prompt = build_prompt(names[first : last + 1])
        return len(tokenizer(prompt.text, verbose=False)["input_ids"])

    most = chunk if isinstance(chunk, int) else len(names)
    groups: list[list[int]] = []
    for label, name in enumerate(names):
        if label % most == 0 or token_count(groups[-1][0], label) > length:
            alone = token_count(label, label)
            if alone > length:
                raise UserError(f"label {name.name!r:.80} has {alone} tokens alone, the model reads {length}")
            groups.append([])
        groups[-1].append(label)
    return groups
