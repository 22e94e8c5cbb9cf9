"""Settings of coarse-grained pre-training, and what they share with fine-tuning for retrieval."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fiber_cli.settings import Owner, TaskSettings, option
from fiber_cli.tasks.abilities import Embedding, Matching
from fiber_cli.tasks.declaration import rule

if TYPE_CHECKING:
    from fiber_cli.config.recipe import Recipe

_RANKS = (1, 5, 10)
#: Settings that validation chooses, see `tasks.retrieval.presence`.
CALIBRATED = {
    "match_threshold": "match/threshold",
    "search_threshold": "search/threshold",
    "fewest_words": "search/fewest_words",
    "most_words": "search/most_words",
    "query_match_threshold": "match/queries/threshold",
    "query_search_threshold": "search/queries/threshold",
    "fewest_query_words": "search/queries/fewest_words",
    "most_query_words": "search/queries/most_words",
}


@dataclass(frozen=True)
class PairSettings(TaskSettings):
    """Objectives on pairs of an image and a text: ITC and ITM."""

    compare_over: Literal["micro_step", "global_batch"] = option(
        "Which pairs ITC contrasts and ITM draws negatives from: those of a micro-step on all ranks, or all of "
        "runtime.global_batch, by cached gradients and one more pass of the stems.",
        "micro_step",
        owner=Owner.MODEL,
    )
    itm: float = option("Weight of image-text matching; 0 = off.", 1.0, ge=0, owner=Owner.MODEL)
    itc: float = option("Weight of image-text contrast; 0 = off.", 1.0, ge=0, owner=Owner.MODEL)
    itm_negatives: Literal["hard", "random"] = option(
        "Drawn by ITC similarity, or uniformly.", "hard", owner=Owner.MODEL
    )
    itm_margin: float | None = option(
        "Hard negatives are further from the pair than this by ITC, in logits: nearer ones may well be true and not "
        "annotated, as of short texts; null = any, as in the paper.",
        None,
        owner=Owner.MODEL,
    )
    itm_pairs: int | None = option(
        "Pairs of a micro-batch that ITM looks at; null = all.", None, ge=1, owner=Owner.MODEL
    )
    queue_size: int = option(
        "Earlier features kept as further ITC negatives.", 0, ge=0, le=1_000_000, owner=Owner.MODEL
    )
    itc_detach_keys: bool = option("No gradient through the keys; as_published: true.", False, owner=Owner.MODEL)
    itc_queue_noise: bool = option("Unwritten queue columns count; as_published: true.", False, owner=Owner.MODEL)
    temperature: float = option("Initial ITC temperature (learnt).", 0.07, ge=0.001, le=1, owner=Owner.MODEL)
    match_threshold: float | None = option(
        "Least matched logit of a picture that a caption is likely to be true of; null: what validation finds best "
        "(`match/threshold`).",
        None,
        owner=Owner.MODEL,
    )
    search_threshold: float | None = option(
        "The same of the sum that searches rank by, itc / temperature + matched logit; null: `search/threshold`.",
        None,
        owner=Owner.MODEL,
    )
    fewest_words: float | None = option(
        "Of the texts that both thresholds are for; null: `search/fewest_words`.", None, ge=0, owner=Owner.MODEL
    )
    most_words: float | None = option("The same: `search/most_words`.", None, ge=0, owner=Owner.MODEL)
    query_match_threshold: float | None = option(
        "As match_threshold, of short queries; null: `match/queries/threshold`.", None, owner=Owner.MODEL
    )
    query_search_threshold: float | None = option(
        "As search_threshold, of short queries; null: `search/queries/threshold`.", None, owner=Owner.MODEL
    )
    fewest_query_words: float | None = option(
        "Of the queries that these two are for; null: `search/queries/fewest_words`.", None, ge=0, owner=Owner.MODEL
    )
    most_query_words: float | None = option("The same: `search/queries/most_words`.", None, ge=0, owner=Owner.MODEL)

    @property
    def switched_off(self) -> frozenset[type[object]]:
        """Without its objective a head has not been trained."""
        abilities: set[type[object]] = set()
        if not self.itc:
            abilities.add(Embedding)
        if not self.itm:
            abilities.add(Matching)
        return frozenset(abilities)


@dataclass(frozen=True)
class CoarseSettings(PairSettings):
    """Coarse-grained pre-training (paper section 3.2)."""

    name: Literal["coarse"]
    mlm: float = option("Weight of masked language modelling; 0 = off.", 1.0, ge=0, owner=Owner.MODEL)
    mlm_pairs: int | None = option(
        "Pairs of a micro-batch that MLM looks at; null = all.", None, ge=1, owner=Owner.MODEL
    )
    mlm_probability: float = option("Share of tokens to predict.", 0.15, gt=0, lt=1, owner=Owner.READER)


def retrieval_metrics(settings: PairSettings) -> tuple[str, ...]:
    """Recalls by the objective that is trained: ITC where it is on, else ITM."""
    mode = "itc" if settings.itc else "itm"
    names = []
    for direction in ("ir", "tr"):
        for k in _RANKS:
            names.append(f"{mode}/{direction}@{k}")
    return tuple(names)


def pair_settings(recipe: "Recipe") -> PairSettings:
    """The task's settings, of one of the two tasks that have these rules."""
    assert isinstance(recipe.task, PairSettings)
    return recipe.task


@rule("task", "task.itm", "task.itc", "task.mlm")
def something_is_trained(recipe: "Recipe") -> str | None:
    """Of coarse-grained pre-training."""
    task = pair_settings(recipe)
    mlm = task.mlm if isinstance(task, CoarseSettings) else 0
    return None if task.itm or task.itc or mlm else "all its weights are 0: nothing to train"


@rule("task.itm_negatives", "task.itm", "task.itc")
def hard_negatives_need_itc(recipe: "Recipe") -> str | None:
    """Hard negatives are drawn by the similarities that ITC learns."""
    task = pair_settings(recipe)
    if task.itm_negatives == "hard" and task.itm and not task.itc:
        return "hard negatives are drawn by ITC similarity: set task.itc above 0, or itm_negatives to random"
    return None


@rule("task.itm_margin", "task.itm_negatives")
def margin_needs_hard_negatives(recipe: "Recipe") -> str | None:
    """Uniform negatives are not weighed."""
    task = pair_settings(recipe)
    if task.itm_margin is not None and task.itm_negatives != "hard":
        return "only hard negatives are chosen by ITC similarity: set task.itm_negatives to hard, or itm_margin to null"
    return None


@rule("task.compare_over", "task.itc")
def comparing_all_needs_itc(recipe: "Recipe") -> str | None:
    """Only ITC is another loss among more pairs."""
    task = pair_settings(recipe)
    if task.compare_over == "global_batch" and not task.itc:
        return "without ITC nothing is contrasted: set task.itc above 0, or compare_over to micro_step"
    return None


@rule("task.queue_size", "task.itc")
def queue_needs_itc(recipe: "Recipe") -> str | None:
    """Only ITC reads the queue."""
    task = pair_settings(recipe)
    if task.queue_size and not task.itc:
        return "only ITC uses the queue: set task.itc above 0, or queue_size to 0"
    return None


@rule("log.validate_every", "task.itm", "task.itc")
def validation_needs_a_score(recipe: "Recipe") -> str | None:
    """MLM alone ranks nothing."""
    task = pair_settings(recipe)
    if recipe.log.validate_every and not (task.itm or task.itc):
        return "validation measures retrieval, which needs task.itc or task.itm above 0: set it to null"
    return None


PAIR_RULES = (
    something_is_trained,
    hard_negatives_need_itc,
    margin_needs_hard_negatives,
    comparing_all_needs_itc,
    queue_needs_itc,
    validation_needs_a_score,
)
