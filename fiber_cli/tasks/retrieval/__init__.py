"""Fine-tuning for retrieval with ITC, ITM or both, and re-ranking (paper section 3.3, Tables 3 and 4)."""

from fiber_cli.data.source import CaptionSource
from fiber_cli.tasks.abilities import Embedding, Matching
from fiber_cli.tasks.coarse.settings import CALIBRATED, PAIR_RULES, retrieval_metrics
from fiber_cli.tasks.declaration import Lazy, ParameterKinds, PublishedForm, TaskDeclaration, WeightChanges
from fiber_cli.tasks.retrieval.settings import RetrievalSettings

RETRIEVAL = TaskDeclaration(
    name="retrieval",
    verb="finetune",
    about="images for texts and texts for images",
    settings=RetrievalSettings,
    rules=PAIR_RULES,
    reads=(CaptionSource,),
    scenes=({"kind": "scenes"},),
    free_image_size=False,
    module=Lazy("fiber_cli.tasks.retrieval.task:RetrievalTask"),
    training_data=Lazy("fiber_cli.tasks.retrieval.data:training_data"),
    evaluation=Lazy("fiber_cli.tasks.retrieval.evaluation:evaluation"),
    metrics=retrieval_metrics,
    evaluation_batch=64,
    calibrated=CALIBRATED,
    parameters=ParameterKinds(heads=("itm.",), cross_modal=("pool.", "itc_pool."), backbone=("temperature",)),
    init_from=WeightChanges(fresh=("itm.", "temperature"), dropped=("mlm.", "itm.", "temperature")),
    abilities=(Embedding, Matching),
    published_checkpoints={
        "retrieval-itc": PublishedForm("coarse", {"itm": 0.0}, text_length=50),
        "retrieval-itm": PublishedForm("coarse", {"itc": 0.0, "itm_negatives": "random"}, text_length=50),
    },
)
