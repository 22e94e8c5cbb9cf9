"""Visual entailment: whether a picture shows what a statement says, its contrary, or neither."""

from fiber_cli.tasks.entailment.settings import EntailmentSettings, entailment_metrics

from fiber_cli.data.source import StatementSource
from fiber_cli.tasks.declaration import Lazy, ParameterKinds, TaskDeclaration, WeightChanges

ENTAILMENT = TaskDeclaration(
    name="entailment",
    verb="finetune",
    about="a picture and a statement, three answers",
    settings=EntailmentSettings,
    rules=(),
    reads=(StatementSource,),
    scenes=({"kind": "scenes", "pairs": False},),
    free_image_size=False,
    module=Lazy("fiber_cli.tasks.entailment.task:EntailmentTask"),
    training_data=Lazy("fiber_cli.tasks.entailment.data:training_data"),
    evaluation=Lazy("fiber_cli.tasks.entailment.evaluation:evaluation"),
    metrics=entailment_metrics,
    evaluation_batch=64,
    calibrated={},
    parameters=ParameterKinds(heads=("entailment.",), cross_modal=("pool.",), backbone=()),
    init_from=WeightChanges(fresh=("entailment.",), dropped=("mlm.", "itm.", "itc_pool.", "temperature")),
    abilities=(),
    published_checkpoints={},
)
