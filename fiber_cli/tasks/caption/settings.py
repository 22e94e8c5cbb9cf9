"""Settings of captioning."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fiber_cli.settings import Owner, TaskSettings, option
from fiber_cli.tasks.declaration import rule

if TYPE_CHECKING:
    from fiber_cli.config.recipe import Recipe


@dataclass(frozen=True)
class CaptionSettings(TaskSettings):
    """Captioning (paper section 3.3)."""

    name: Literal["caption"]
    form: Literal["seq2seq", "fused"] = option(
        "Every fused text layer reads the image tower's last map, or the map that it reads in a fused pass.",
        "seq2seq",
        owner=Owner.MODEL,
    )
    objective: Literal["mle", "gold", "cider"] = option(
        "Likelihood, off-policy GOLD, or CIDEr reward.", "mle", owner=Owner.MODEL
    )
    gold_refresh: int = option("Steps after which GOLD's frozen copy is renewed.", 1000, ge=1, owner=Owner.MODEL)
    gold_floor: float = option("GOLD's least token weight.", 0.1, gt=0, le=1, owner=Owner.MODEL)
    gold_as_published: bool = option(
        "GOLD divides by the number of padding labels; as_published: true.",
        False,
        owner=Owner.MODEL,
        formerly="gold_published",
    )
    cider_df: str | None = option(
        "Document frequencies made by `fiber cider-df`, below data.root or here.",
        None,
        path=True,
        made_by="cider-df",
        owner=Owner.RUN,
    )
    cider_samples: int = option("Captions drawn per image for the reward.", 5, ge=1, owner=Owner.MODEL)
    cider_weight: float = option(
        "Share of the reward in the loss; the rest is likelihood.", 0.7, ge=0, le=1, owner=Owner.MODEL
    )
    beam: int = option("Beam width.", 5, ge=1, owner=Owner.MODEL)
    search_as_published: bool = option(
        "Beam search whose lengths belong to slots; as_published: true.",
        False,
        owner=Owner.MODEL,
        formerly="published_search",
    )


def caption_metric_names(settings: CaptionSettings) -> tuple[str, ...]:
    """What `tasks.caption.metrics` computes and `log.keep_best` can go by."""
    return "caption/cider", "caption/bleu4", "caption/meteor", "caption/rouge_l", "caption/spice"


def caption_settings(recipe: "Recipe") -> CaptionSettings:
    assert isinstance(recipe.task, CaptionSettings)
    return recipe.task


@rule("task.cider_df", "task.objective")
def reward_needs_document_frequencies(recipe: "Recipe") -> str | None:
    """CIDEr weighs words by how rare they are in the training captions."""
    task = caption_settings(recipe)
    if task.objective == "cider" and task.cider_df is None:
        return "the reward needs document frequencies: make them with `fiber cider-df` and name the file here"
    return None


@rule("task.objective", "runtime.zero_stage")
def whole_parameters_are_needed(recipe: "Recipe") -> str | None:
    """GOLD copies the weights, CIDEr draws captions with them, outside the engine's forward pass."""
    objective = caption_settings(recipe).objective
    if objective != "mle" and recipe.runtime.zero_stage == 3:
        return f"{objective} needs whole parameters on every rank: set runtime.zero_stage to at most 2"
    return None


CAPTION_RULES = (reward_needs_document_frequencies, whole_parameters_are_needed)
