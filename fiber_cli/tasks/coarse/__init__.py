"""Coarse-grained pre-training: MLM, ITM with hard negatives and ITC on images and captions (paper section 3.2)."""

from fiber_cli.data.source import CaptionSource
from fiber_cli.tasks.abilities import Embedding, Matching
from fiber_cli.tasks.coarse.settings import CALIBRATED, PAIR_RULES, CoarseSettings, retrieval_metrics
from fiber_cli.tasks.declaration import Lazy, ParameterKinds, PublishedForm, TaskDeclaration, WeightChanges

COARSE = TaskDeclaration(
    name="coarse",
    verb="pretrain",
    about="images and captions: MLM, ITM and ITC",
    settings=CoarseSettings,
    rules=PAIR_RULES,
    reads=(CaptionSource,),
    scenes=({"kind": "scenes"},),
    free_image_size=False,
    module=Lazy("fiber_cli.tasks.coarse.task:CoarseTask"),
    training_data=Lazy("fiber_cli.tasks.coarse.data:training_data"),
    evaluation=Lazy("fiber_cli.tasks.retrieval.evaluation:evaluation"),
    metrics=retrieval_metrics,
    evaluation_batch=64,
    calibrated=CALIBRATED,
    parameters=ParameterKinds(heads=("mlm.", "itm."), cross_modal=("pool.", "itc_pool."), backbone=("temperature",)),
    init_from=WeightChanges(fresh=(), dropped=()),
    abilities=(Embedding, Matching),
    published_checkpoints={"coarse": PublishedForm("coarse", {}, text_length=40)},
)
