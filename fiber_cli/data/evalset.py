"""Images and texts of retrieval, each read once, with the truth of what belongs together."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader

from fiber_cli.data.loader import make_loader
from fiber_cli.data.source import BadSample, Source, sample_id
from fiber_cli.data.text import encode
from fiber_cli.data.transforms import EvalTransform


class RetrievalSet:
    """All images of the sources with all their captions.

    image_ids: names of the `n_images` images; texts: the `n_texts` captions; text_image: int64 (n_texts,),
    the image of each text. Images without a readable caption are in neither and listed in `left_out` as
    (id, reason); those whose pixels cannot be read show up while loading.
    """

    def __init__(
        self, sources: Sequence[Source], tokenizer, text_length: int, image_size: int | tuple[int, int]
    ):
        self.tokenizer, self.text_length = tokenizer, text_length
        self.transform = EvalTransform(image_size)
        self.image_ids: list[str] = []
        self.texts: list[str] = []
        self.left_out: list[tuple[str, str]] = []
        self._images: list[tuple[Source, int]] = []
        text_image = []
        samples = ((source, i) for source in sources for i in range(len(source)))
        for source, i in samples:
            try:
                captions = source.captions(i)
                if not captions:
                    raise BadSample("no caption")
            except BadSample as error:
                self.left_out.append((sample_id(source, i), str(error)))
                continue
            text_image += [len(self._images)] * len(captions)
            self.texts += captions
            self.image_ids.append(sample_id(source, i))
            self._images.append((source, i))
        self.text_image = np.array(text_image, dtype=np.int64)

    @property
    def n_images(self) -> int:
        return len(self.image_ids)

    @property
    def n_texts(self) -> int:
        return len(self.texts)

    def loader(self, kind: str, *, rank: int, world: int, batch_size: int, workers: int) -> DataLoader:
        """Batches of this rank's contiguous share, in order; no item is repeated to fill a batch or a rank.

        kind `images`: `index` int64 (B,), `pixels` uint8 (B, 3, H, W), and `bad`, the (id, reason) of those
        that cannot be read, which are in neither. kind `texts`: `index`, `ids` int64 (B, L), `mask` bool
        (B, L), `truncated`.
        """
        kinds = {"images": (self._read_images, self.n_images), "texts": (self._read_texts, self.n_texts)}
        read, count = kinds[kind]
        share = range(count * rank // world, count * (rank + 1) // world)
        return make_loader(share, workers, batch_size=batch_size, collate_fn=read)

    def _read_images(self, indices: list[int]) -> dict:
        kept, pixels, bad = [], [], []
        for index in indices:
            source, i = self._images[index]
            try:
                pixels.append(self.transform(source.image(i)))
                kept.append(index)
            except BadSample as error:
                bad.append((self.image_ids[index], str(error)))
        empty = torch.empty((0, 3, self.transform.height, self.transform.width), dtype=torch.uint8)
        return {
            "index": torch.tensor(kept, dtype=torch.int64),
            "pixels": torch.stack(pixels) if pixels else empty,
            "bad": bad,
        }

    def _read_texts(self, indices: list[int]) -> dict:
        texts = [self.texts[index] for index in indices]
        ids, mask, truncated = encode(self.tokenizer, texts, self.text_length)
        return {"index": torch.tensor(indices), "ids": ids, "mask": mask, "truncated": truncated}
