"""Visual reasoning: whether a statement is true of two images, or of one (paper section 3.3)."""

from fiber_cli.data.source import StatementSource
from fiber_cli.tasks.declaration import Lazy, ParameterKinds, PublishedForm, TaskDeclaration, WeightChanges
from fiber_cli.tasks.nlvr2.settings import Nlvr2Settings, nlvr2_metrics

NLVR2 = TaskDeclaration(
    name="nlvr2",
    verb="finetune",
    about="statements about two images, or one",
    settings=Nlvr2Settings,
    rules=(),
    reads=(StatementSource,),
    scenes=({"kind": "scenes"},),
    free_image_size=False,
    module=Lazy("fiber_cli.tasks.nlvr2.task:Nlvr2Task"),
    training_data=Lazy("fiber_cli.tasks.nlvr2.data:training_data"),
    evaluation=Lazy("fiber_cli.tasks.nlvr2.evaluation:evaluation"),
    metrics=nlvr2_metrics,
    evaluation_batch=64,
    calibrated={},
    parameters=ParameterKinds(heads=("nlvr2.",), cross_modal=("pool.",), backbone=()),
    init_from=WeightChanges(fresh=("nlvr2.",), dropped=("mlm.", "itm.", "itc_pool.", "temperature")),
    abilities=(),
    published_checkpoints={"nlvr2": PublishedForm("coarse", {}, text_length=50)},
)
