"""Evaluation of boxes for words: each source by the set that fits it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fiber_cli.data.source import CategorySource, PhraseSource, RegionSource, Source, require
from fiber_cli.errors import UserError
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evaluation import (
    Checked,
    Evaluation,
    Result,
    check_items,
    distinct_names,
    measure_items,
    refuse_retrieval_options,
    together,
)
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.tasks.regions.coco_ap import USUAL_LIBRARY, ApLibrary, ap_library, odinw_ap
from fiber_cli.tasks.regions.detection_set import DetectionSet, LvisSet
from fiber_cli.tasks.regions.phrase_set import PhraseSet, TextRegionSet
from fiber_cli.tasks.regions.referring_set import ReferringSet
from fiber_cli.tasks.regions.region_set import RegionSet
from fiber_cli.tasks.regions.settings import RefexpSettings, RegionSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def region_sets(
    sources: Sequence[RegionSource],
    tokenizer: "PreTrainedTokenizerBase",
    text_length: int,
    *,
    short: int,
    longest: int,
    referring: bool,
    chunk: int | str = "auto",
    names_as_published: bool = False,
    library: ApLibrary = USUAL_LIBRARY,
) -> list[RegionSet]:
    """How each source is evaluated: detection where it has names (LVIS's way where it has LVIS's lists), else its
    phrases, or its texts as one expression each where it `refers`, or does not say and `referring` is set.

    short, longest: sides of the images in pixels; library: what computes AP. UserError for a `chunk` or another library
    than the usual one without a detection source.
    """
    sets: list[RegionSet] = []
    for source in sources:
        if isinstance(source, CategorySource) and source.names:
            detection_set = LvisSet if source.federated else DetectionSet
            sets.append(
                detection_set(
                    source,
                    tokenizer,
                    text_length,
                    short=short,
                    longest=longest,
                    chunk=chunk,
                    names_as_published=names_as_published,
                    library=library,
                )
            )
        else:
            (phrase_source,) = require([source], PhraseSource, "evaluation")
            text_set = _text_set(phrase_source, referring)
            sets.append(text_set(phrase_source, tokenizer, text_length, short=short, longest=longest))
    if any(isinstance(region_set, DetectionSet) for region_set in sets):
        return sets
    if chunk != "auto":
        raise UserError("--chunk is for detection; phrases and expressions have a text each")
    if library != USUAL_LIBRARY:
        raise UserError("--ap-library is for detection; phrases and expressions have no AP")
    return sets


def _text_set(source: PhraseSource, referring: bool) -> type[TextRegionSet]:
    refers = referring if source.refers is None else source.refers
    return ReferringSet if refers else PhraseSet


class RegionEvaluation(Evaluation):
    """Sets of images with boxes, each measured by itself.

    Of AP of several sets there is also, as in ODinW, the plain mean. Raises UserError for options of other tasks.
    """

    def __init__(self, mode: str, sets: list[RegionSet], options: EvaluationOptions):
        if options.blind:
            raise UserError("--blind: boxes of another image cannot fit; it is for image-level tasks")
        refuse_retrieval_options(options, mode)
        self.mode, self.sets = mode, sets

    def check(self) -> Checked:
        checks = [check_items(region_set) for region_set in self.sets]
        remarks: list[str] = []
        results = []
        for region_set, check in zip(self.sets, checks, strict=True):
            remarks.extend(check.remarks)
            metrics = dict.fromkeys(check.metrics or (), 0.0)
            results.append(Result(metrics, samples=len(region_set), files=dict.fromkeys(check.files, "")))
        whole = self._together(results)
        return Checked(remarks, whole.metrics, tuple(whole.files))

    def measure(self, task: Task, options: PredictOptions) -> Result:
        return self._together([measure_items(task, region_set, options) for region_set in self.sets])

    def _together(self, results: Sequence[Result]) -> Result:
        """The results of the sets as one, with the mean of AP."""
        names = distinct_names([region_set.source.name for region_set in self.sets])
        whole = together(names, results)
        aps = {}
        for name, result in zip(names, results, strict=True):
            if "detection/ap" in result.metrics:
                aps[name] = result.metrics["detection/ap"]
        if len(aps) > 1:
            whole.metrics.update(odinw_ap(aps))
        return whole


def evaluation(
    sources: Sequence[Source], context: TaskContext[RegionSettings], options: EvaluationOptions
) -> RegionEvaluation:
    """Every source by the set that fits it, see `region_sets`."""
    settings = context.settings
    sets = region_sets(
        require(sources, RegionSource, "evaluation"),
        context.tokenizer,
        context.text_length,
        short=settings.short_sides[-1],
        longest=settings.longest_side,
        referring=isinstance(settings, RefexpSettings),
        chunk=options.chunk,
        names_as_published=settings.names_as_published,
        library=ap_library(options.ap_library),
    )
    return RegionEvaluation(settings.name, sets, options)
