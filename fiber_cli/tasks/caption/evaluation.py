"""Caption evaluation: images whose generated captions are held against references."""

from collections.abc import Sequence

import numpy as np

from fiber_cli.tasks.evalset import ImageSet, Score
from fiber_cli.data.source import Source, readable_captions
from fiber_cli.tasks.caption.metrics import caption_metrics


class CaptionSet(ImageSet):
    """All images of the sources: `pixels` uint8 (3, H, W). Sources may have `image_ids`, the community's names of
    the images, else their keys are given, and `domains`, the names (or None) of parts that are also scored alone."""

    def __init__(self, sources: Sequence[Source], tokenizer, image_size: int | tuple[int, int]):
        super().__init__([(source, i) for source in sources for i in range(len(source))], image_size)
        self.tokenizer = tokenizer

    def score(self, predictions: dict[int, np.ndarray]) -> Score:
        """`caption_metrics` of rows of token ids, for images with references; `caption/<domain>/…` of a domain's alone,
        CIDEr's word frequencies included; `captions.json` in the form that COCO takes."""
        numbers = sorted(predictions)
        rows = [predictions[number].tolist() for number in numbers]
        captions = [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]
        answers, groups = [], {None: []}
        for number, caption in zip(numbers, captions):
            source, i = self.images[number]
            image_id = source.image_ids[i] if hasattr(source, "image_ids") else source.key(i)
            answers.append({"image_id": image_id, "caption": caption})
            if references := readable_captions(source, i):
                domain = source.domains[i] if hasattr(source, "domains") else None
                for group in {None, domain}:
                    groups.setdefault(group, []).append((caption, references))
        metrics, notes = {}, []
        if without := len(answers) - len(groups[None]):
            notes.append(f"{without} of {len(answers)} images have no reference captions and count in no metric")
        for group, pairs in groups.items():
            if pairs:
                found, remarks = caption_metrics(*zip(*pairs))
                notes += [remark for remark in remarks if remark not in notes]
                prefix = "caption/" if group is None else f"caption/{group}/"
                metrics |= {prefix + name.removeprefix("caption/"): value for name, value in found.items()}
        return Score(metrics, {"captions.json": answers}, notes)
