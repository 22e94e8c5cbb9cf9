"""`Fiber`: pictures and texts in, plain Python results out."""

# Overloads overlap in `str`, which is one picture here although it is a sequence of strings.
# mypy: disable-error-code="overload-overlap"

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self, overload

import numpy as np

from fiber_cli.checkpoints.loading import load
from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.distributed.device import device_named
from fiber_cli.errors import UserError
from fiber_cli.inference.arguments import (
    Count,
    CountFromZero,
    Device,
    FilePath,
    Flag,
    Text,
    Texts,
    checked,
    instance_of,
)
from fiber_cli.inference.describing import Describing
from fiber_cli.inference.finding import USUAL_THRESHOLD, Finding
from fiber_cli.inference.folder_search import FolderSearch
from fiber_cli.inference.in_use import InUse, computing
from fiber_cli.inference.pictures import OnError, Picture, PictureReader, batches, pairs_of, pictures_of, texts_of
from fiber_cli.placement import Precision
from fiber_cli.tasks.abilities import Embedding, Matching
from fiber_cli.tasks.retrieval.pairs import match_scores

__all__ = ["USUAL_THRESHOLD", "Fiber"]

OtherCheckpoint = Annotated[InUse, instance_of(InUse, "a `Fiber` of another checkpoint")]


class Fiber(Describing, Finding):
    """A checkpoint in use. Every method takes one input or a list of them and answers in kind.

    Pictures are paths, addresses (http://, https:// or data:), image files as bytes or opened as binary, PIL images,
    uint8 arrays (H, W), (H, W, 3) or (H, W, 4), or uint8 tensors (C, H, W); an array (N, H, W, C) and a tensor
    (N, C, H, W) are taken as lists of N.
    Encoded images are turned upright by their EXIF orientation, the others are taken as they are; transparency is laid
    on white. Raises UserError for what the checkpoint was not trained for, and for pictures that cannot be read: with
    `on_error="skip"` one in a list costs that picture alone, whose result is None, or NaN in an array, and a warning
    names it. max_pixels: encoded images with more are not read. batch_size: inputs in one pass; 32 where it is not
    given, 4 for detection.

    What a method is told holds for that call alone, so that threads can share an object.
    """

    @classmethod
    @checked
    def from_pretrained(
        cls,
        path: FilePath,
        device: Device | None = None,
        *,
        latest: Flag = False,
        batch_size: Count | None = None,
        precision: Precision = "auto",
        tf32: Flag | None = None,
    ) -> Self:
        """Of a checkpoint directory; or of a run or a checkpoints folder, whose best one is taken where its recipe
        keeps one, and with latest=True the latest. Which it is stands in `loaded.path` and on standard error. Or
        "builtin/NAME", one that ships with fiber and knows drawn scenes only, such as "builtin/detection"; "builtin"
        alone is a UserError that lists the names, because nothing says yet what will be asked. Or a name of the Hugging
        Face hub, "org/name" or "org/name@revision", where nothing here has that path; or the address of an archive with
        its digest, "https://…/model.tar#sha256=…". Both are fetched once and cached, and no code of theirs is run.

        device: such as "cpu", "cuda:1" or "mps"; by default what FIBER_DEVICE names, else a GPU where there is one.
        UserError where this machine has none of it. precision: of the products; "auto" is "bf16" on GPUs that have it,
        else "fp32"; "int8" is for CPUs. tf32: whether GPUs round the factors of float32 products to TensorFloat-32, of
        this process; None: as PyTorch does by itself."""
        loaded = load(os.fspath(path), latest=latest)
        return cls(loaded, None if device is None else device_named(device), batch_size, precision, tf32)

    @checked
    @computing
    def embed_images(
        self, images: Picture | Sequence[Picture], *, on_error: OnError = "raise", max_pixels: Count = MAX_PIXELS
    ) -> np.ndarray:
        """Dual-encoder features, float32 (D,) or (N, D), L2 norm 1."""
        dual_encoder = self.loaded.ability(Embedding)
        pictures, single = pictures_of(images)
        reader = PictureReader(single, on_error, max_pixels)
        features: dict[int, np.ndarray] = {}
        for numbers, opened in reader.batches(pictures, self.batch_size):
            rows = dual_encoder.image_features(self._image_stems(opened)).float().cpu().numpy()
            features.update(zip(numbers, rows, strict=True))
        return features[0] if single else _in_order(features, len(pictures))

    @checked
    @computing
    def embed_texts(self, texts: Texts) -> np.ndarray:
        """Dual-encoder features, float32 (D,) or (N, D), L2 norm 1."""
        dual_encoder = self.loaded.ability(Embedding)
        sentences, single = texts_of(texts)
        features = []
        for batch in batches(sentences, self.batch_size):
            features.append(dual_encoder.text_features(self._text_stems(batch)).float().cpu().numpy())
        rows: np.ndarray = np.concatenate(features)
        return rows[0] if single else rows

    @overload
    def match(
        self, images: Picture, texts: str, *, on_error: OnError = "raise", max_pixels: int = MAX_PIXELS
    ) -> float: ...
    @overload
    def match(
        self,
        images: Sequence[Picture],
        texts: str | Sequence[str],
        *,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> np.ndarray: ...
    @overload
    def match(
        self, images: Picture, texts: Sequence[str], *, on_error: OnError = "raise", max_pixels: int = MAX_PIXELS
    ) -> np.ndarray: ...
    @checked
    @computing
    def match(
        self,
        images: Picture | Sequence[Picture],
        texts: Texts,
        *,
        on_error: OnError = "raise",
        max_pixels: Count = MAX_PIXELS,
    ) -> float | np.ndarray:
        """The "matched" logit of the ITM head for each pair (image n, text n); one of the two may stand for all."""
        matcher = self.loaded.ability(Matching)
        pairs = pairs_of(images, texts)
        logits: dict[int, np.ndarray] = {}
        for numbers, image, text in self._stems_of_pairs(pairs, on_error, max_pixels):
            matched = match_scores(matcher, image, text).cpu().numpy()
            logits.update(zip(numbers, matched, strict=True))
        return float(logits[0]) if pairs.single else _in_order(logits, len(pairs.texts))

    @checked
    def with_index(
        self,
        folder: FilePath,
        *,
        index: FilePath | None = None,
        fusion: OtherCheckpoint | None = None,
        max_pixels: Count = MAX_PIXELS,
        workers: CountFromZero = 0,
        half: Flag | None = None,
    ) -> FolderSearch:
        """The pictures below a folder, for searching. Their features are kept in a file in the folder, or in `index`,
        see `fiber rerank`; only new and changed pictures are computed. fusion: another checkpoint, which scores the
        dual encoder's best. workers: processes that read pictures while the index is made. half: keep the features as
        float16, in half the room, which changes cosines by less than 0.001; by default those of an index that is there
        stay as they are, which is told where that is float16, and new ones are float32; False is a UserError where they
        are float16. UserError for a checkpoint without a dual encoder, and for one without fusion where no other is
        given."""
        self.loaded.ability(Embedding)
        file = None if index is None else Path(index)
        return FolderSearch(self, Path(folder), file, fusion, max_pixels, workers, half=half)

    @property
    def match_threshold(self) -> float | None:
        """Least logit of `match` of a text that is likely to be true of the picture, as the checkpoint's validation
        found best: that of whole captions (`match/threshold`), of queries where there is no other; None where no
        validation has chosen one. See `match_threshold_of`."""
        return self.loaded.ability(Matching).match_thresholds.of_longest

    @checked
    def match_threshold_of(self, text: Text) -> float | None:
        """The one that is for a text of this length: short queries have another than whole captions
        (`match/queries/threshold`). None for shorter and longer texts than any it was chosen by, of which nothing is
        known."""
        return self.loaded.ability(Matching).match_thresholds.least(text)

    @property
    def search_threshold(self) -> float | None:
        """The same of the sum that searches rank by, the cosine of `embed_images` and `embed_texts` divided by the
        temperature plus the logit of `match`, of a checkpoint without fusion of the first alone
        (`search/threshold`). See `search_threshold_of`."""
        return self.loaded.ability(Embedding).search_thresholds.of_longest

    @checked
    def search_threshold_of(self, text: Text) -> float | None:
        """The same as `match_threshold_of`, of the sum that searches rank by (`search/queries/threshold`)."""
        return self.loaded.ability(Embedding).search_thresholds.least(text)


def _in_order(rows: Mapping[int, np.ndarray], count: int) -> np.ndarray:
    """The rows by their numbers, NaN for those that are not there. UserError where none is."""
    if not rows:
        raise UserError(f"none of {count} images could be read")
    shape = np.shape(next(iter(rows.values())))
    array = np.full((count, *shape), np.nan, np.float32)
    for number, row in rows.items():
        array[number] = row
    return array
