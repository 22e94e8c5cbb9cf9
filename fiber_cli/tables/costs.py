"""What a training costs, estimated before it is run.

Trainings with boxes go by the paper's Table 2, which says how long FIBER-B trains on COCO on V100s; the others by the
operations of a sample, counted once, at a share of an A100's rate that large batches reach. The samples of an epoch
are those of the published data sets, so that a plan needs no data. Both hold for the shipped recipes, not for settings
that are put over them.
"""

from functools import cache
from typing import NamedTuple

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.training.gpus import GPUS, SHARE

#: Tera-operations a second of an A100 in bfloat16.
A100_RATE = GPUS["a100"].rate
#: What a cost goes by.
ESTIMATE, PAPER = "estimate", "the paper's"
_SECONDS_AN_HOUR = 3600
#: Images of COCO's train2017 with boxes, and the epochs of Table 2.
_COCO_IMAGES, _TABLE_2_EPOCHS = 117_266, 24
#: V100-hours of Table 2.
TABLE_2_HOURS = {"coco_no_fuse": 511.0, "coco_deep_fusion": 840.0, "coco_scratch": 540.0}
#: V100-seconds that an image of a training with boxes takes.
V100_SECONDS = TABLE_2_HOURS["coco_scratch"] * _SECONDS_AN_HOUR / (_COCO_IMAGES * _TABLE_2_EPOCHS)


class Size(NamedTuple):
    """Of a recipe's training. samples: of an epoch, None where the recipe counts steps; tflop: tera-operations of a
    sample forward and backward, with activations computed again, None of trainings with boxes."""

    samples: int | None
    tflop: float | None


#: Of a recipe; of a run of another name what its header puts over the recipe is counted in.
SIZES = {
    "4m": Size(None, 0.99),
    "4m_top": Size(None, 0.77),
    "vqav2": Size(658_111, 0.98),
    "vqav2_top": Size(658_111, 1.12),
    "vqav2_generated": Size(658_111, 0.96),
    "nlvr2": Size(86_373, 0.92),
    "nlvr2_top": Size(86_373, 0.96),
    "coco_itc": Size(566_747, 0.90),
    "coco_itm": Size(566_747, 0.80),
    "flickr30k_itc": Size(145_000, 0.90),
    "flickr30k_itm": Size(145_000, 0.80),
    "caption_mle": Size(566_747, 0.98),
    "caption_gold": Size(566_747, 1.22),
    "caption_cider": Size(566_747, 1.70),
    "4m_clean": Size(None, 0.99),
    "fine": Size(None, None),
    "fine_clean": Size(None, None),
    "fine_no_coarse": Size(None, None),
    "coco_detection": Size(_COCO_IMAGES, None),
    "lvis": Size(100_170, None),
    "refcoco": Size(120_624, None),
    "refcoco_plus": Size(120_191, None),
    "refcocog": Size(80_512, None),
}
#: Images that the fine-tunings of ODinW go through: of all data 24,488 images for 20 epochs, where early stopping ends
#: most; of few shots 50 categories, as often as the published copies, for all 200 epochs and three draws.
TUNED_IMAGES = {0: 24_488 * 20, 1: 50 * 8 * 200 * 3, 3: 50 * 12 * 200 * 3, 5: 50 * 10 * 200 * 3, 10: 50 * 10 * 200 * 3}
#: A100-hours of fusion over all pairs of a test split: COCO's 5,000 x 25,000, Flickr30k's 1,000 x 5,000, at 0.03
#: tera-operations a pair.
PAIR_HOURS = {"coco": 8.4, "flickr30k": 0.4}


class Cost(NamedTuple):
    """gpu_hours: None where nothing is known to estimate it by; gpu: of which kind."""

    gpu_hours: float | None
    gpu: str = ""
    basis: str = ""

    def __str__(self) -> str:
        if self.gpu_hours is None:
            return "unknown"
        hours = f"{self.gpu_hours:,.0f}" if self.gpu_hours >= 1 else "under 1"
        return f"{hours} {self.gpu}-hours ({self.basis})"


UNKNOWN = Cost(None)
#: What costs go by, for the reader of a plan.
BASES = (
    f"{PAPER}: hours of Table 2",
    f"{ESTIMATE}: steps and epochs are the recipes', samples those of the published data sets, whatever is there and "
    "is put over the recipes; with boxes by Table 2's time of an image, others by the operations of a sample at "
    f"{SHARE:.0%} of an A100's {A100_RATE:g} TFLOPS; ODinW's early stopping is taken to end after 20 epochs",
)


@cache
def training_cost(recipe: str, run: str = "") -> Cost:
    """Of a shipped recipe's whole training; run: its name, where sizes are known by that."""
    if recipe in TABLE_2_HOURS:
        return Cost(TABLE_2_HOURS[recipe], "V100", PAPER)
    size = SIZES.get(run, SIZES.get(recipe))
    if size is None:
        return UNKNOWN
    settings = resolve_recipe(recipe)
    batch = settings.runtime.global_batch
    steps = settings.optim.steps
    if steps is None:
        assert size.samples is not None
        assert settings.optim.epochs is not None
        steps = size.samples // batch * settings.optim.epochs
    if size.tflop is None:
        return tuning_cost(steps * batch)
    return Cost(steps * batch * size.tflop / (A100_RATE * SHARE) / _SECONDS_AN_HOUR, "A100", ESTIMATE)


def tuning_cost(images: int) -> Cost:
    """Of training a detector on so many images."""
    return Cost(images * V100_SECONDS / _SECONDS_AN_HOUR, "V100", ESTIMATE)


def evaluation_cost(dataset: str, mode: str | None) -> Cost:
    """Of an evaluation; all but fusion over all pairs take less than an hour."""
    hours = PAIR_HOURS.get(dataset, 0.0) if mode in ("itm", "itc+itm") else 0.0
    return Cost(hours, "A100", ESTIMATE)


def total(costs: list[Cost]) -> list[Cost]:
    """Sums by the kind of GPU; an unknown one stays beside them."""
    sums: dict[str, float] = {}
    bases: dict[str, set[str]] = {}
    summed = []
    for cost in costs:
        if cost.gpu_hours is not None:
            sums[cost.gpu] = sums.get(cost.gpu, 0.0) + cost.gpu_hours
            bases.setdefault(cost.gpu, set()).add(cost.basis)
    for gpu, hours in sums.items():
        basis = ESTIMATE if ESTIMATE in bases[gpu] else PAPER
        summed.append(Cost(hours, gpu, basis))
    if any(cost.gpu_hours is None for cost in costs):
        summed.append(UNKNOWN)
    return summed
