"""The tables of the paper: FIBER's rows and Table 2's, each number once.

Where a figure comes from is an evaluation or a training of a recipe; how that is made stands in the recipe's header
(`tables.commands`).
"""

from collections.abc import Mapping

from fiber_cli.tables.rows import Cell, Evaluated, Row, Source, Table, Trained, Tuned, cells

#: Where predictions are sent whose truth is not public.
VQA_SERVER = "https://eval.ai/web/challenges/challenge-page/830 (VQA Challenge)"
NOCAPS_SERVER = "https://eval.ai/web/challenges/challenge-page/355 (nocaps)"
#: What a training's summary.json tells, see `results.training_figures`.
GPU_HOURS, SECONDS_A_STEP = "summary/gpu_hours", "summary/seconds_a_step"
RECALLS = ("ir@1", "ir@5", "ir@10", "tr@1", "tr@5", "tr@10")
#: Way of retrieval → its row of Table 4. The numbers are how many of the dual encoder's best are scored by fusion.
WAYS = {
    "itc": "ITC",
    "itm": "ITM",
    "itc+itm": "ITC+ITM",
    "rerank-10": "re-rank 10",
    "rerank-20": "re-rank 20",
    "rerank-50": "re-rank 50",
    "rerank-100": "re-rank 100",
}
#: Data set → way of retrieval → IR@1, 5, 10 and TR@1, 5, 10.
RETRIEVAL: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "flickr30k": {
        "itc": (81.44, 96.72, 98.48, 92.90, 99.50, 99.90),
        "itm": (84.10, 97.54, 98.88, 95.10, 99.60, 99.90),
        "itc+itm": (90.96, 98.44, 99.14, 96.00, 99.70, 100.00),
        "rerank-10": (90.94, 98.16, 98.48, 95.80, 99.60, 99.90),
        "rerank-20": (90.10, 98.38, 99.14, 95.90, 99.80, 100.00),
        "rerank-50": (91.08, 98.50, 99.37, 96.10, 99.70, 100.00),
        "rerank-100": (91.02, 98.54, 99.34, 96.00, 99.70, 100.00),
    },
    "coco": {
        "itc": (58.01, 83.45, 90.11, 75.38, 94.04, 97.36),
        "itm": (59.03, 84.04, 91.03, 75.14, 93.88, 97.36),
        "itc+itm": (69.73, 90.66, 94.59, 80.10, 95.60, 97.98),
        "rerank-10": (68.71, 87.69, 90.09, 79.66, 95.34, 97.36),
        "rerank-20": (69.32, 89.52, 93.33, 79.78, 95.20, 97.66),
        "rerank-50": (69.58, 90.41, 94.35, 79.98, 95.40, 97.76),
        "rerank-100": (69.63, 90.54, 94.47, 80.06, 95.60, 97.96),
    },
}
#: Data set → its name in the tables.
IN_WORDS = {"flickr30k": "Flickr30k", "coco": "COCO"}


def recall_column(recall: str) -> str:
    """Such as "IR@1"."""
    return recall.upper()


def retrieval_sources(dataset: str, way: str) -> tuple[Source, ...]:
    """What has a row of Table 4. The fusion scores over all pairs, which cost most, are in the results of both."""
    itc, itm = f"{dataset}_itc", f"{dataset}_itm"
    both = Evaluated(itm, dataset, "test", "itc+itm")
    if way == "itc":
        return Evaluated(itc, dataset, "test", "itc"), both
    if way == "itm":
        return both, Evaluated(itm, dataset, "test", "itm")
    return (both,) if way == "itc+itm" else (Evaluated(itm, dataset, "test", "rerank"),)


def retrieval_row(dataset: str, way: str) -> Row:
    """A row of Table 4."""
    figures = []
    for recall, paper in zip(RECALLS, RETRIEVAL[dataset][way], strict=True):
        figures.append((recall_column(recall), f"{way}/{recall}", paper))
    return Row(f"{IN_WORDS[dataset]} {WAYS[way]}", cells(retrieval_sources(dataset, way), *figures))


def first_recalls(dataset: str) -> tuple[Cell, ...]:
    """IR@1 and TR@1 by the dual encoder, which Table 3 repeats."""
    numbers = dict(zip(RECALLS, RETRIEVAL[dataset]["itc"], strict=True))
    figures = []
    for recall in ("ir@1", "tr@1"):
        column = f"{IN_WORDS[dataset]} {recall_column(recall)}"
        figures.append((column, f"itc/{recall}", numbers[recall]))
    return cells(retrieval_sources(dataset, "itc"), *figures)


def _detector_row(label: str, recipe: str, ap: float, hours: float, seconds: float) -> Row:
    """A row of Table 2."""
    measured = cells((Evaluated(recipe, "coco", "val"),), ("AP", "detection/ap", ap))
    trained = (("GPU-hours", GPU_HOURS, hours), ("s/step", SECONDS_A_STEP, seconds))
    return Row(label, measured + cells((Trained(recipe),), *trained))


def _caption_row(label: str, recipe: str, numbers: tuple[float, ...], starts_from: str | None = None) -> Row:
    """A row of Table 5. numbers: B@4, METEOR, CIDEr and SPICE on COCO, CIDEr and SPICE on NoCaps' val and test."""

    def source(dataset: str, split: str) -> tuple[Source, ...]:
        return (Evaluated(recipe, dataset, split, starts_from=starts_from),)

    bleu, meteor, cider, spice, val_cider, val_spice, test_cider, test_spice = numbers
    coco = (
        ("B@4", "caption/bleu4", bleu),
        ("METEOR", "caption/meteor", meteor),
        ("CIDEr", "caption/cider", cider),
        ("SPICE", "caption/spice", spice),
    )
    val = ("NoCaps val C", "caption/cider", val_cider), ("val S", "caption/spice", val_spice)
    test = ("NoCaps test C", "caption/cider", test_cider), ("test S", "caption/spice", test_spice)
    return Row(
        label,
        cells(source("coco_caption", "test"), *coco)
        + cells(source("nocaps", "val"), *val)
        + cells(source("nocaps", "test"), *test, server=NOCAPS_SERVER),
    )


def _phrase_row(label: str, recipe: str, val: tuple[float, ...], test: tuple[float, ...]) -> Row:
    """A row of Table 6. val, test: recall at 1, 5 and 10."""
    row: tuple[Cell, ...] = ()
    for split, numbers in (("val", val), ("test", test)):
        figures = []
        for k, paper in zip((1, 5, 10), numbers, strict=True):
            figures.append((f"{split} R@{k}", f"grounding/any_box/r@{k}", paper))
        row += cells((Evaluated(recipe, "flickr30k_entities", split),), *figures)
    return Row(label, row)


#: Data set → its recipe and the paper's accuracy by split.
REFERRING: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "refcoco": ("refcoco", {"val": 90.68, "testA": 92.59, "testB": 87.26}),
    "refcoco+": ("refcoco_plus", {"val": 85.74, "testA": 90.13, "testB": 79.38}),
    "refcocog": ("refcocog", {"val": 87.11, "test": 87.32}),
}


def _referring_row(label: str, metric: str) -> Row:
    """A row of Table 7."""
    row: tuple[Cell, ...] = ()
    for dataset, (recipe, numbers) in REFERRING.items():
        for split, paper in numbers.items():
            name = dataset.replace("refcoco", "RefCOCO")
            row += cells((Evaluated(recipe, dataset, split),), (f"{name} {split}", metric, paper))
    return Row(label, row)


def _lvis_figures(numbers: tuple[float, ...]) -> tuple[tuple[str, str, float | None], ...]:
    """Columns of LVIS in Table 8. numbers: fixed APr, APc, APf and AP."""
    rare, common, frequent, all_names = numbers
    return (
        ("LVIS APr", "lvis/fixed_apr", rare),
        ("APc", "lvis/fixed_apc", common),
        ("APf", "lvis/fixed_apf", frequent),
        ("LVIS AP", "lvis/fixed_ap", all_names),
    )


ZERO_SHOT = Row(
    "zero-shot",
    cells((Evaluated("fine", "coco", "val"),), ("COCO AP", "detection/ap", 49.3))
    + cells((Evaluated("fine", "lvis", "minival"),), *_lvis_figures((29.5, 32.2, 40.1, 35.8)))
    + cells((Evaluated("fine", "odinw13", "test"),), ("ODinW-13 AP", "detection/ap", 47.0)),
)
FINE_TUNED = Row(
    "fine-tuned",
    cells((Evaluated("coco_detection", "coco", "val"),), ("COCO AP", "detection/ap", 58.4))
    + cells((Evaluated("lvis", "lvis", "minival"),), *_lvis_figures((50.0, 56.9, 58.1, 56.9)))
    + cells((Tuned("odinw", 0),), ("ODinW-13 AP", "detection/ap", 65.9)),
)

TABLES = {
    "2": Table(
        "2",
        "COCO detection by where the towers are fused, without vision-language pre-training",
        (
            _detector_row("no fusion", "coco_no_fuse", 53.9, 511, 1.31),
            _detector_row("GLIP-B, deep fusion in the head", "coco_deep_fusion", 54.6, 840, 2.14),
            _detector_row("FIBER-B, fusion in the backbone", "coco_scratch", 54.5, 540, 1.38),
        ),
        ("The paper's hours and seconds are of V100s.",),
    ),
    "3": Table(
        "3",
        "image-level tasks",
        (
            Row(
                "FIBER-B",
                cells(
                    (Evaluated("vqav2", "vqav2", "test-dev"),),
                    ("VQAv2 test-dev", "vqa/accuracy", 78.55),
                    server=VQA_SERVER,
                )
                + cells((Evaluated("vqav2", "vqav2", "test"),), ("test-std", "vqa/accuracy", 78.46), server=VQA_SERVER)
                + cells((Evaluated("nlvr2", "nlvr2", "dev"),), ("NLVR2 dev", "nlvr2/accuracy", 84.59))
                + cells((Evaluated("nlvr2", "nlvr2", "test"),), ("test-P", "nlvr2/accuracy", 85.52))
                + first_recalls("flickr30k")
                + first_recalls("coco"),
            ),
        ),
    ),
    "4": Table(
        "4",
        "retrieval by the dual encoder, by fusion, and by both, recall (%)",
        tuple(retrieval_row(dataset, way) for dataset in RETRIEVAL for way in WAYS),
    ),
    "5": Table(
        "5",
        "captions of COCO's Karpathy test, and of NoCaps without training on it",
        (
            _caption_row("FIBER-B", "caption_mle", (39.1, 30.4, 128.4, 23.1, 88.6, 13.0, 86.0, 12.9)),
            _caption_row("FIBER-B, GOLD", "caption_gold", (40.3, 30.7, 133.6, 23.6, 92.8, 13.4, 90.6, 13.4)),
            _caption_row(
                "FIBER-B, CIDEr from likelihood",
                "caption_cider",
                (42.8, 31.0, 142.8, 24.3, 96.7, 13.4, 94.1, 13.4),
                starts_from="caption_mle",
            ),
            _caption_row(
                "FIBER-B, CIDEr from GOLD",
                "caption_cider",
                (43.4, 31.3, 144.4, 24.6, 99.2, 13.7, 97.1, 13.8),
                starts_from="caption_gold",
            ),
        ),
    ),
    "6": Table(
        "6",
        "phrase grounding on Flickr30k Entities without fine-tuning, recall by any box (%)",
        (
            _phrase_row("FIBER-B", "fine", (87.1, 96.1, 97.4), (87.4, 96.4, 97.6)),
            _phrase_row("without coarse pre-training", "fine_no_coarse", (86.2, 96.0, 97.6), (86.5, 96.4, 97.7)),
        ),
    ),
    "7": Table(
        "7",
        "referring expressions, accuracy (%)",
        (
            _referring_row("FIBER-B, GIoU ≥ 0.5", "refexp/acc@giou50"),
            _referring_row("FIBER-B, IoU ≥ 0.5", "refexp/acc@iou50"),
        ),
        ("The paper says IoU; the published evaluation, which its numbers come from, tests GIoU, which is stricter.",),
    ),
    "8": Table("8", "detection, zero-shot and fine-tuned, AP (LVIS: fixed AP)", (ZERO_SHOT, FINE_TUNED)),
    "fig5": Table(
        "fig5",
        "ODinW-13 by shots, mean AP",
        (
            Row(
                "FIBER-B",
                cells((Evaluated("fine", "odinw13", "test"),), ("0 shots", "detection/ap", 47.0))
                + cells((Tuned("odinw_few_shot", 1),), ("1 shot", "detection/ap", None))
                + cells((Tuned("odinw_few_shot", 3),), ("3 shots", "detection/ap", None))
                + cells((Tuned("odinw_few_shot", 5),), ("5 shots", "detection/ap", None))
                + cells((Tuned("odinw_few_shot", 10),), ("10 shots", "detection/ap", None))
                + cells((Tuned("odinw", 0),), ("all data", "detection/ap", 65.9)),
            ),
        ),
        ("The paper draws the few shots and gives no numbers of them; its ends are Table 8's.",),
    ),
}
