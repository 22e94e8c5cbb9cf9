"""Captioning by likelihood, GOLD or CIDEr reward (paper section 3.3, Table 5)."""

from fiber_cli.data.source import CaptionSource
from fiber_cli.tasks.abilities import Captioning
from fiber_cli.tasks.caption.settings import CAPTION_RULES, CaptionSettings, caption_metric_names
from fiber_cli.tasks.declaration import Lazy, ParameterKinds, PublishedForm, TaskDeclaration, WeightChanges

CAPTION = TaskDeclaration(
    name="caption",
    verb="finetune",
    about="captions of images",
    settings=CaptionSettings,
    rules=CAPTION_RULES,
    reads=(CaptionSource,),
    scenes=({"kind": "scenes"},),
    free_image_size=False,
    module=Lazy("fiber_cli.tasks.caption.task:CaptionTask"),
    training_data=Lazy("fiber_cli.tasks.caption.data:training_data"),
    evaluation=Lazy("fiber_cli.tasks.caption.evaluation:evaluation"),
    metrics=caption_metric_names,
    evaluation_batch=64,
    calibrated={},
    parameters=ParameterKinds(heads=("mlm.",), cross_modal=("pool.",), backbone=()),
    init_from=WeightChanges(fresh=("encoder.memory_proj.",), dropped=("itc_pool.", "itm.", "temperature")),
    abilities=(Captioning,),
    published_checkpoints={"caption": PublishedForm("coarse", {}, text_length=50)},
)
