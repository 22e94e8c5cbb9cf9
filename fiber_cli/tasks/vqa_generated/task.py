"""Visual question answering by generation: the captioner's decoder reads the question and goes on with the answer.

Shapes: B pairs of an image and a question, L text length, N image tokens, C image width.
"""

from typing import Any, Self

from torch import Tensor

from fiber_cli.data.text import special_ids
from fiber_cli.errors import UserError
from fiber_cli.model.beam_search import beam_search, best_captions
from fiber_cli.model.captioner import Captioner, Prompt, SpecialIds
from fiber_cli.model.config import FiberConfig
from fiber_cli.model.fusion import FusedEncoder, ImageStem
from fiber_cli.model.heads import MlmHead, PairPooler
from fiber_cli.model.pixels import normalize
from fiber_cli.settings import Owner, owned
from fiber_cli.tasks.abilities import Answering, BestTexts
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.token_losses import token_losses
from fiber_cli.tasks.vqa_generated.settings import GeneratedVqaSettings


class GeneratedVqaTask(Task, Answering):
    """Learns the answers' tokens by likelihood, all text causal and the image seen by cross-attention alone, as the
    captioner has it. answer_length: most tokens of a generated answer, its end included; beam: see `beam_search`."""

    def __init__(
        self,
        config: FiberConfig,
        *,
        answer_length: int = 10,
        beam: int = 3,
        cls_id: int = 0,
        sep_id: int = 2,
        pad_id: int = 1,
        mask_id: int = 50264,
    ):
        super().__init__()
        self.answer_length = answer_length
        self.beam = beam
        self.special = SpecialIds(cls_id, sep_id, pad_id, mask_id)
        self.encoder = FusedEncoder(config, captioning=True)
        self.pool = PairPooler(config)
        self.mlm = MlmHead(config)

    @classmethod
    def from_context(cls, context: TaskContext[GeneratedVqaSettings]) -> Self:
        """Raises UserError where question and answer together are longer than the text encoder has positions for."""
        text = context.model.text
        longest = text.positions - text.pad_id - 1
        length = context.text_length + context.settings.answer_length
        if length > longest:
            raise UserError(
                f"task.answer_length={context.settings.answer_length}: with model.text_length={context.text_length} "
                f"these are {length} tokens, and the model has positions for {longest}; lower one of the two"
            )
        settings = owned(context.settings, Owner.MODEL) | special_ids(context.tokenizer)
        return cls(context.model, **settings)

    @property
    def captioner(self) -> Captioner:
        return Captioner(self.encoder, self.pool, self.mlm)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """ "loss" carries the graph: the cross-entropy of the answers' tokens, a mean over those of the global batch;
        "vqa_loss", the same, is for the log. batch: pixels uint8 (B, 3, H, W); ids int64, mask bool and labels int64
        (B, L), see `data.GeneratedVqaReader`; optionally label_positions, see `labelled_positions`."""
        memory = self.captioner.memory(normalize(batch["pixels"]))
        texts, positions = (batch["ids"], batch["mask"], batch["labels"]), batch.get("label_positions")
        loss = token_losses(self.captioner, memory, *texts, positions).mean()
        return {"loss": loss, "vqa_loss": loss.detach()}

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Tokens of the answers, int64 (B, answer_length), without special ones, padded. batch: pixels uint8
        (B, 3, H, W); ids int64 and mask bool (B, L) of the questions."""
        stem = self.encoder.image_stem(normalize(batch["pixels"]))
        return self.answer(stem, batch["ids"], batch["mask"])

    def answer(self, image: ImageStem, ids: Tensor, mask: Tensor) -> Tensor:
        memory = self.encoder.memory(image)
        tokens, _ = beam_search(
            self.captioner,
            memory,
            beam=self.beam,
            max_length=self.answer_length + 1,
            special=self.special,
            prompt=Prompt(ids, mask),
        )
        return tokens.masked_fill(tokens == self.special.sep, self.special.pad)

    def best_answers(self, image: ImageStem, ids: Tensor, mask: Tensor, count: int) -> BestTexts:
        tokens, log_probs = best_captions(
            self.captioner,
            self.encoder.memory(image),
            count,
            beam=self.beam,
            max_length=self.answer_length + 1,
            special=self.special,
            prompt=Prompt(ids, mask),
        )
        return BestTexts(tokens.masked_fill(tokens == self.special.sep, self.special.pad), log_probs.exp())
