"""Labels in chunks, and the prompts of a batch."""

import pytest
import torch

from fiber_cli.errors import UserError
from fiber_cli.tasks.regions.prompt_batch import PromptBatch, chunk_labels, label_prompts
from fiber_cli.tasks.regions.prompts import PromptName, build_prompt, prompt_names


class WordTokenizer:
    """As many tokens as words and periods, and two more."""

    def __call__(self, text, **_):
        return {"input_ids": [0, *text.replace(".", " .").split(), 2]}


def test_chunks_of_a_data_set_have_the_published_prompts(cases):
    case = cases["create_queries_and_maps_from_dataset_chunk2"]
    names = prompt_names([case["categories"][key] for key in sorted(case["categories"], key=int)])
    groups = chunk_labels(names, WordTokenizer(), 256, 2)
    assert [build_prompt([names[label] for label in group]).text for group in groups] == case["queries"]


def test_chunks_have_the_published_lengths(cases):
    for case in cases["chunks"]:
        groups = chunk_labels([PromptName("x")] * case["n_items"], WordTokenizer(), 256, case["chunk"])
        assert [len(group) for group in groups] == case["chunk_lengths"]
        assert [label for group in groups for label in group] == list(range(case["n_items"]))


def test_chunks_never_cut_a_name():
    names = [PromptName(" ".join(["word"] * n)) for n in (3, 1, 4, 1, 5, 2, 6)]
    # two special tokens, the words, and a period between names
    assert chunk_labels(names, WordTokenizer(), 10, "auto") == [[0, 1], [2, 3], [4, 5], [6]]
    assert chunk_labels(names, WordTokenizer(), 10, 3) == [[0, 1], [2], [3, 4], [5], [6]]
    with pytest.raises(UserError, match="has 8 tokens alone, the model reads 7"):
        chunk_labels(names, WordTokenizer(), 7, "auto")


def test_labels_of_several_prompts_keep_their_numbers(tokenizer):
    names = prompt_names(["cat", "dog", "traffic light"])
    prompts = PromptBatch.all_pairs(label_prompts(names, tokenizer, 64, chunk=2), images=2)
    assert prompts.pairs == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert prompts.truncated == 0
    images = [torch.full((3, 30, 40), 9, dtype=torch.uint8), torch.full((3, 33, 20), 9, dtype=torch.uint8)]
    batch = prompts.with_images(images, [torch.tensor([60, 80]), torch.tensor([33, 20])])
    assert batch["pixels"].shape == (2, 3, 64, 64)
    assert batch["sizes"].tolist() == [[30, 40], [33, 20]]
    assert batch["original_sizes"].tolist() == [[60, 80], [33, 20]]
    assert batch["label_prompt"].tolist() == [0, 0, 1]
    assert batch["labels"].tolist() == [0, 1, 2]
    for name, prompt, tokens in zip(names, batch["label_prompt"], batch["positive_map"], strict=True):
        assert tokenizer.decode(batch["ids"][prompt][tokens]).strip() == name.name
