"""What pictures show, in words: answers to questions, and captions."""

# Overloads overlap in `str`, which is one picture here although it is a sequence of strings.
# mypy: disable-error-code="overload-overlap"

import warnings
from collections.abc import Sequence
from typing import Literal, overload

from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.inference.arguments import Count, Flag, Texts, checked
from fiber_cli.inference.in_use import InUse, computing
from fiber_cli.inference.pictures import (
    OnError,
    Picture,
    PictureReader,
    one_or_all,
    pairs_of,
    pictures_of,
    refuse_empty,
    texts_of,
)
from fiber_cli.inference.results import ScoredText
from fiber_cli.tasks.abilities import Answering, BestTexts, Captioning
from fiber_cli.tasks.vqa.answers import answer_texts


class Describing(InUse):
    """What checkpoints that answer questions, or caption, do."""

    @overload
    def answer(
        self, images: Picture, questions: str, *, on_error: OnError = "raise", max_pixels: int = MAX_PIXELS
    ) -> str: ...
    @overload
    def answer(
        self,
        images: Sequence[Picture],
        questions: str | Sequence[str],
        *,
        on_error: Literal["raise"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[str]: ...
    @overload
    def answer(
        self,
        images: Sequence[Picture],
        questions: str | Sequence[str],
        *,
        on_error: Literal["skip"],
        max_pixels: int = MAX_PIXELS,
    ) -> list[str | None]: ...
    @overload
    def answer(
        self, images: Picture, questions: Sequence[str], *, on_error: OnError = "raise", max_pixels: int = MAX_PIXELS
    ) -> list[str]: ...
    @checked
    @computing
    def answer(
        self,
        images: Picture | Sequence[Picture],
        questions: Texts,
        *,
        on_error: OnError = "raise",
        max_pixels: Count = MAX_PIXELS,
    ) -> str | list[str] | list[str | None]:
        """The best answer for each (image, question), of the checkpoint's vocabulary or generated; one of the two may
        stand for all."""
        answerer = self.loaded.ability(Answering)
        refuse_empty(texts_of(questions)[0], "question")
        pairs = pairs_of(images, questions)
        answers: dict[int, str] = {}
        for numbers, image, asked in self._read_pairs(pairs, on_error, max_pixels):
            rows = answerer.answer(image, *self._encoded(asked)).cpu().numpy()
            texts = answer_texts(list(rows), self.context.tokenizer, self.context.labels)
            answers.update(zip(numbers, texts, strict=True))
        return one_or_all(answers, len(pairs.texts), is_single=pairs.single)

    @overload
    def answers(
        self, images: Picture, questions: str, k: int = 5, *, on_error: OnError = "raise", max_pixels: int = MAX_PIXELS
    ) -> list[ScoredText]: ...
    @overload
    def answers(
        self,
        images: Sequence[Picture],
        questions: str | Sequence[str],
        k: int = 5,
        *,
        on_error: Literal["raise"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[list[ScoredText]]: ...
    @overload
    def answers(
        self,
        images: Sequence[Picture],
        questions: str | Sequence[str],
        k: int = 5,
        *,
        on_error: Literal["skip"],
        max_pixels: int = MAX_PIXELS,
    ) -> list[list[ScoredText] | None]: ...
    @overload
    def answers(
        self,
        images: Picture,
        questions: Sequence[str],
        k: int = 5,
        *,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[list[ScoredText]]: ...
    @checked
    @computing
    def answers(
        self,
        images: Picture | Sequence[Picture],
        questions: Texts,
        k: Count = 5,
        *,
        on_error: OnError = "raise",
        max_pixels: Count = MAX_PIXELS,
    ) -> list[ScoredText] | list[list[ScoredText]] | list[list[ScoredText] | None]:
        """The `k` best answers for each (image, question) with their scores, best first; fewer where the checkpoint has
        no more. The first is that of `answer`, of generated ones as long as k is no more than the checkpoint's beam."""
        answerer = self.loaded.ability(Answering)
        refuse_empty(texts_of(questions)[0], "question")
        pairs = pairs_of(images, questions)
        answers: dict[int, list[ScoredText]] = {}
        for numbers, image, asked in self._read_pairs(pairs, on_error, max_pixels):
            best = answerer.best_answers(image, *self._encoded(asked), k)
            answers.update(zip(numbers, self._scored(best), strict=True))
        return one_or_all(answers, len(pairs.texts), is_single=pairs.single)

    @overload
    def caption(
        self,
        images: Picture,
        beam: int = 5,
        as_published: bool = False,
        *,
        published: bool | None = None,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> str: ...
    @overload
    def caption(
        self,
        images: Sequence[Picture],
        beam: int = 5,
        as_published: bool = False,
        *,
        published: bool | None = None,
        on_error: Literal["raise"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[str]: ...
    @overload
    def caption(
        self,
        images: Sequence[Picture],
        beam: int = 5,
        as_published: bool = False,
        *,
        published: bool | None = None,
        on_error: Literal["skip"],
        max_pixels: int = MAX_PIXELS,
    ) -> list[str | None]: ...
    @checked
    @computing
    def caption(
        self,
        images: Picture | Sequence[Picture],
        beam: Count = 5,
        as_published: Flag = False,
        *,
        published: Flag | None = None,
        on_error: OnError = "raise",
        max_pixels: Count = MAX_PIXELS,
    ) -> str | list[str] | list[str | None]:
        """A caption for each image by beam search. as_published: search as the authors' code does; published: its name
        in earlier versions."""
        if published is not None:
            warnings.warn("caption(published=…) is now caption(as_published=…)", DeprecationWarning, stacklevel=4)
            as_published = published
        captioner = self.loaded.ability(Captioning)
        pictures, single = pictures_of(images)
        reader = PictureReader(single, on_error, max_pixels)
        captions: dict[int, str] = {}
        for numbers, opened in reader.batches(pictures, self.batch_size):
            tokens = captioner.caption_pixels(self._pixels(opened), beam=beam, as_published=as_published)
            texts = self.context.tokenizer.batch_decode(tokens, skip_special_tokens=True)
            for number, text in zip(numbers, texts, strict=True):
                captions[number] = text.strip()
        return one_or_all(captions, len(pictures), is_single=single)

    @overload
    def captions(
        self,
        images: Picture,
        k: int = 5,
        beam: int = 5,
        as_published: bool = False,
        *,
        on_error: OnError = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[ScoredText]: ...
    @overload
    def captions(
        self,
        images: Sequence[Picture],
        k: int = 5,
        beam: int = 5,
        as_published: bool = False,
        *,
        on_error: Literal["raise"] = "raise",
        max_pixels: int = MAX_PIXELS,
    ) -> list[list[ScoredText]]: ...
    @overload
    def captions(
        self,
        images: Sequence[Picture],
        k: int = 5,
        beam: int = 5,
        as_published: bool = False,
        *,
        on_error: Literal["skip"],
        max_pixels: int = MAX_PIXELS,
    ) -> list[list[ScoredText] | None]: ...
    @checked
    @computing
    def captions(
        self,
        images: Picture | Sequence[Picture],
        k: Count = 5,
        beam: Count = 5,
        as_published: Flag = False,
        *,
        on_error: OnError = "raise",
        max_pixels: Count = MAX_PIXELS,
    ) -> list[ScoredText] | list[list[ScoredText]] | list[list[ScoredText] | None]:
        """The `k` best captions for each image that a search with `beam` hypotheses, or k if that is more, ends with,
        with their scores, best first. The first is that of `caption` with as many hypotheses."""
        captioner = self.loaded.ability(Captioning)
        pictures, single = pictures_of(images)
        reader = PictureReader(single, on_error, max_pixels)
        captions: dict[int, list[ScoredText]] = {}
        for numbers, opened in reader.batches(pictures, self.batch_size):
            best = captioner.best_captions(self._pixels(opened), k, beam=beam, as_published=as_published)
            captions.update(zip(numbers, self._scored(best), strict=True))
        return one_or_all(captions, len(pictures), is_single=single)

    def _scored(self, best: BestTexts) -> list[list[ScoredText]]:
        """In words, best first; of those of the same words the best, and none that a search has not found."""
        labels = self.context.labels if best.rows.ndim == 2 else None
        scored = []
        for rows, scores in zip(best.rows.cpu().numpy(), best.scores.tolist(), strict=True):
            texts = answer_texts(list(rows), self.context.tokenizer, labels)
            score_of: dict[str, float] = {}
            for text, score in zip(texts, scores, strict=True):
                if labels is not None or score > 0:
                    score_of.setdefault(text, score)
            scored.append([ScoredText(text, score) for text, score in score_of.items()])
        return scored
