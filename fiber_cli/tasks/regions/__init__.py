"""Boxes for words, four tasks on one module: fine-grained pre-training, detection, phrase grounding and referring
expressions (paper section 3.3)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from fiber_cli.data.source import RegionSource
from fiber_cli.tasks.abilities import Detecting
from fiber_cli.tasks.declaration import Lazy, ParameterKinds, PublishedForm, TaskDeclaration, WeightChanges
from fiber_cli.tasks.regions.settings import REGION_RULES, FineSettings, RefexpSettings, RegionSettings, region_metrics

#: Side at which scenes are drawn for detectors, in pixels.
SCENE_SIZE = 128


def _declare(
    name: str,
    verb: Literal["pretrain", "finetune"],
    about: str,
    scenes: tuple[str, ...],
    settings: type[RegionSettings] = FineSettings,
    published: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> TaskDeclaration:
    """published: further kinds of published checkpoints of the task, each with the settings it was trained with."""
    published_checkpoints = {}
    for kind, trained_with in {name: {}, **published}.items():
        published_checkpoints[kind] = PublishedForm(
            "fine", {"names_as_published": True, **trained_with}, text_length=256
        )
    return TaskDeclaration(
        name=name,
        verb=verb,
        about=about,
        settings=settings,
        rules=REGION_RULES,
        reads=(RegionSource,),
        scenes=tuple({"kind": kind, "image_size": SCENE_SIZE} for kind in scenes),
        free_image_size=True,
        module=Lazy("fiber_cli.tasks.regions.task:RegionTask"),
        training_data=Lazy("fiber_cli.tasks.regions.data:training_data"),
        evaluation=Lazy("fiber_cli.tasks.regions.evaluation:evaluation"),
        metrics=region_metrics,
        evaluation_batch=4,
        calibrated={"threshold": "detection/threshold"},
        parameters=ParameterKinds(heads=("detector.",), cross_modal=(), backbone=()),
        init_from=WeightChanges(
            fresh=("detector.",),
            dropped=("pool.", "itc_pool.", "mlm.", "itm.", "temperature", "encoder.image.norm."),
        ),
        abilities=(Detecting,),
        published_checkpoints=published_checkpoints,
    )


FINE = _declare("fine", "pretrain", "images, words and boxes", ("scene_detection", "scene_referring"))
DETECTION = _declare(
    "detection",
    "finetune",
    "boxes for category names",
    ("scene_detection",),
    published={"coco-detection": {"prompt": "all"}, "lvis": {"control": (0.0, 0.0, 1.0)}},
)
GROUNDING = _declare("grounding", "finetune", "boxes for the phrases of a caption", ("scene_grounding",))
REFEXP = _declare(
    "refexp", "finetune", "the box of an expression", ("scene_referring",), RefexpSettings, published={"refcoco": {}}
)
