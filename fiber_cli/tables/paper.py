"""The tables of the paper: FIBER's rows and Table 2's, each number once.

Where a figure comes from is an evaluation or a training of a recipe; how that is made stands in the recipe's header
(`tables.commands`).
"""

from collections.abc import Iterator, Mapping

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
Numbers = tuple[float | None, ...]
#: Of Table 8, where the paper's are not at hand.
NO_NUMBERS: Numbers = (None,) * 6
#: Mean AP of ODinW-13, in Table 8 and at the ends of Figure 5.
ODINW_ZERO_SHOT, ODINW_FINE_TUNED = 47.0, 65.9
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


def _retrieval_rows() -> Iterator[Row]:
    for dataset in RETRIEVAL:
        for way in WAYS:
            yield retrieval_row(dataset, way)


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


def _caption_row(label: str, recipe: str, starts_from: str | None, numbers: Numbers) -> Row:
    """A row of Table 5. numbers: B@4, METEOR, CIDEr and SPICE on COCO, CIDEr and SPICE on NoCaps' val and test."""
    on_coco = Evaluated(recipe, "coco_caption", "test", starts_from=starts_from)
    on_val = Evaluated(recipe, "nocaps", "val", starts_from=starts_from)
    on_test = on_val._replace(split="test")
    bleu, meteor, cider, spice, val_cider, val_spice, test_cider, test_spice = numbers
    coco = (
        ("B@4", "caption/bleu4", bleu),
        ("METEOR", "caption/meteor", meteor),
        ("CIDEr", "caption/cider", cider),
        ("SPICE", "caption/spice", spice),
    )
    val = ("NoCaps val C", "caption/cider", val_cider), ("val S", "caption/spice", val_spice)
    test = ("NoCaps test C", "caption/cider", test_cider), ("test S", "caption/spice", test_spice)
    row = cells((on_coco,), *coco) + cells((on_val,), *val) + cells((on_test,), *test, server=NOCAPS_SERVER)
    return Row(label, row)


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


def _detection_row(label: str, coco: Source, lvis: Source, odinw: Source, numbers: Numbers) -> Row:
    """A row of Table 8. numbers: AP of COCO; fixed APr, APc, APf and AP of LVIS; mean AP of ODinW."""
    coco_ap, rare, common, frequent, lvis_ap, odinw_ap = numbers
    lvis_figures = (
        ("LVIS APr", "lvis/fixed_apr", rare),
        ("APc", "lvis/fixed_apc", common),
        ("APf", "lvis/fixed_apf", frequent),
        ("LVIS AP", "lvis/fixed_ap", lvis_ap),
    )
    row = cells((coco,), ("COCO AP", "detection/ap", coco_ap))
    row += cells((lvis,), *lvis_figures)
    row += cells((odinw,), ("ODinW-13 AP", "detection/ap", odinw_ap))
    return Row(label, row)


def _zero_shot_row(label: str, recipe: str, numbers: Numbers) -> Row:
    """Of a checkpoint of fine pre-training."""
    coco = Evaluated(recipe, "coco", "val")
    lvis = Evaluated(recipe, "lvis", "minival")
    odinw = Evaluated(recipe, "odinw13", "test")
    return _detection_row(label, coco, lvis, odinw, numbers)


def _fine_tuned_row(label: str, starts_from: str | None, numbers: Numbers) -> Row:
    """Of the recipes of the three data sets."""
    coco = Evaluated("coco_detection", "coco", "val", starts_from=starts_from)
    lvis = Evaluated("lvis", "lvis", "minival", starts_from=starts_from)
    odinw = Tuned("odinw", 0, starts_from)
    return _detection_row(label, coco, lvis, odinw, numbers)


def _few_shot_row(label: str, recipe: str) -> Row:
    """The curve of Figure 5, from a checkpoint of fine pre-training."""
    row = cells((Evaluated(recipe, "odinw13", "test"),), ("0 shots", "detection/ap", ODINW_ZERO_SHOT))
    for shots in (1, 3, 5, 10):
        column = "1 shot" if shots == 1 else f"{shots} shots"
        row += cells((Tuned("odinw_few_shot", shots),), (column, "detection/ap", None))
    row += cells((Tuned("odinw", 0),), ("all data", "detection/ap", ODINW_FINE_TUNED))
    return Row(label, row)


def _image_level_row(label: str) -> Row:
    """The row of Table 3."""
    test_dev = (Evaluated("vqav2", "vqav2", "test-dev"),)
    test_std = (Evaluated("vqav2", "vqav2", "test"),)
    row = cells(test_dev, ("VQAv2 test-dev", "vqa/accuracy", 78.55), server=VQA_SERVER)
    row += cells(test_std, ("test-std", "vqa/accuracy", 78.46), server=VQA_SERVER)
    row += cells((Evaluated("nlvr2", "nlvr2", "dev"),), ("NLVR2 dev", "nlvr2/accuracy", 84.59))
    row += cells((Evaluated("nlvr2", "nlvr2", "test"),), ("test-P", "nlvr2/accuracy", 85.52))
    return Row(label, row + first_recalls("flickr30k") + first_recalls("coco"))


def _reasoning_row(label: str, starts_from: str) -> Row:
    """Of questions and statements by recipes of Table 3 from another start, of which the paper gives no numbers."""
    test_dev = Evaluated("vqav2", "vqav2", "test-dev", starts_from=starts_from)
    dev = Evaluated("nlvr2", "nlvr2", "dev", starts_from=starts_from)
    row = cells((test_dev,), ("VQAv2 test-dev", "vqa/accuracy", None), server=VQA_SERVER)
    row += cells((test_dev._replace(split="test"),), ("test-std", "vqa/accuracy", None), server=VQA_SERVER)
    row += cells((dev,), ("NLVR2 dev", "nlvr2/accuracy", None))
    return Row(label, row + cells((dev._replace(split="test"),), ("test-P", "nlvr2/accuracy", None)))


def _generated_row(label: str) -> Row:
    """Of answers that are written, not chosen."""
    test_dev = Evaluated("vqav2_generated", "vqav2", "test-dev")
    row = cells((test_dev,), ("VQAv2 test-dev", "vqa/accuracy", None), server=VQA_SERVER)
    return Row(
        label,
        row + cells((test_dev._replace(split="test"),), ("test-std", "vqa/accuracy", None), server=VQA_SERVER),
    )


TABLE_2 = Table(
    "2",
    "COCO detection by where the towers are fused, without vision-language pre-training",
    (
        _detector_row("no fusion", "coco_no_fuse", 53.9, 511, 1.31),
        _detector_row("GLIP-B, fusion in the head", "coco_deep_fusion", 54.6, 840, 2.14),
        _detector_row("FIBER-B, in the backbone", "coco_scratch", 54.5, 540, 1.38),
    ),
    ("The paper's hours and seconds are of V100s.",),
)
TABLE_3 = Table(
    "3",
    "image-level tasks",
    (
        _image_level_row("FIBER-B"),
        _generated_row("  answers generated"),
        _reasoning_row("  fusion on top, as METER", "4m_top"),
    ),
    ("The paper's numbers of generated answers are not at hand, and it has none of fusion on top of these towers.",),
)
TABLE_4 = Table("4", "retrieval by the dual encoder, by fusion, and by both, recall (%)", tuple(_retrieval_rows()))
TABLE_5 = Table(
    "5",
    "captions of COCO's Karpathy test, and of NoCaps without training on it",
    (
        _caption_row("FIBER-B", "caption_mle", None, (39.1, 30.4, 128.4, 23.1, 88.6, 13.0, 86.0, 12.9)),
        _caption_row("GOLD", "caption_gold", None, (40.3, 30.7, 133.6, 23.6, 92.8, 13.4, 90.6, 13.4)),
        _caption_row(
            "CIDEr, from likelihood",
            "caption_cider",
            "caption_mle",
            (42.8, 31.0, 142.8, 24.3, 96.7, 13.4, 94.1, 13.4),
        ),
        _caption_row(
            "CIDEr, from GOLD", "caption_cider", "caption_gold", (43.4, 31.3, 144.4, 24.6, 99.2, 13.7, 97.1, 13.8)
        ),
    ),
)
TABLE_6 = Table(
    "6",
    "phrase grounding on Flickr30k Entities without fine-tuning, recall by any box (%)",
    (
        _phrase_row("FIBER-B", "fine", (87.1, 96.1, 97.4), (87.4, 96.4, 97.6)),
        _phrase_row("without coarse pre-training", "fine_no_coarse", (86.2, 96.0, 97.6), (86.5, 96.4, 97.7)),
    ),
)
TABLE_7 = Table(
    "7",
    "referring expressions, accuracy (%)",
    (
        _referring_row("FIBER-B, GIoU ≥ 0.5", "refexp/acc@giou50"),
        _referring_row("FIBER-B, IoU ≥ 0.5", "refexp/acc@iou50"),
    ),
    ("The paper says IoU; the published evaluation, which its numbers come from, tests GIoU, which is stricter.",),
)
TABLE_8 = Table(
    "8",
    "detection, zero-shot and fine-tuned, AP (LVIS: fixed AP)",
    (
        _zero_shot_row("zero-shot", "fine", (49.3, 29.5, 32.2, 40.1, 35.8, ODINW_ZERO_SHOT)),
        _zero_shot_row("  without coarse pre-training", "fine_no_coarse", NO_NUMBERS),
        _fine_tuned_row("fine-tuned", None, (58.4, 50.0, 56.9, 58.1, 56.9, ODINW_FINE_TUNED)),
        _fine_tuned_row("  without coarse, fine-tuned", "fine_no_coarse", NO_NUMBERS),
    ),
    ("The paper's numbers without coarse pre-training are not at hand.",),
)
FIGURE_5 = Table(
    "fig5",
    "ODinW-13 by shots, mean AP",
    (_few_shot_row("FIBER-B", "fine"),),
    ("The paper draws the few shots and gives no numbers of them; its ends are Table 8's.",),
)
#: By their names on the command line.
TABLES = {table.name: table for table in (TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_6, TABLE_7, TABLE_8, FIGURE_5)}
