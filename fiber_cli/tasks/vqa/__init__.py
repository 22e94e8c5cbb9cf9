"""Visual question answering as classification over a closed list of answers (paper section 3.3)."""

from fiber_cli.data.source import QuestionSource
from fiber_cli.tasks.abilities import Answering
from fiber_cli.tasks.declaration import Lazy, ParameterKinds, PublishedForm, TaskDeclaration, WeightChanges
from fiber_cli.tasks.vqa.settings import VqaSettings, vqa_metrics

VQA = TaskDeclaration(
    name="vqa",
    verb="finetune",
    about="questions about images",
    settings=VqaSettings,
    rules=(),
    reads=(QuestionSource,),
    scenes=({"kind": "scenes"},),
    free_image_size=False,
    module=Lazy("fiber_cli.tasks.vqa.task:VqaTask"),
    training_data=Lazy("fiber_cli.tasks.vqa.data:training_data"),
    evaluation=Lazy("fiber_cli.tasks.vqa.evaluation:evaluation"),
    metrics=vqa_metrics,
    evaluation_batch=64,
    calibrated={},
    parameters=ParameterKinds(heads=("vqa.",), cross_modal=("pool.",), backbone=()),
    init_from=WeightChanges(fresh=("vqa.",), dropped=("mlm.", "itm.", "itc_pool.", "temperature")),
    abilities=(Answering,),
    published_checkpoints={"vqa": PublishedForm("coarse", {}, text_length=50, labels="vqa_classifier.3.bias")},
)
