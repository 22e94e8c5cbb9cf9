"""Fine-tuning for retrieval is pre-training without MLM."""

from small_retrieval import SMALL, make_task

from fiber_cli.model.config import TINY
from fiber_cli.tasks import declared
from fiber_cli.tasks.abilities import Embedding, Matching
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.retrieval.settings import RetrievalSettings
from fiber_cli.tasks.retrieval.task import RetrievalTask


def test_weights_of_pre_training_fit_but_for_the_mlm_head():
    names = {name for name, _ in RetrievalTask(SMALL).named_parameters()}
    dropped = {name for name, _ in make_task().named_parameters()} - names
    assert dropped
    assert all(name.startswith("mlm.") for name in dropped)
    changes = declared("retrieval").init_from
    assert all(name.startswith(changes.dropped) for name in dropped)


def test_a_context_gives_the_objectives(tokenizer):
    settings = RetrievalSettings("retrieval", itc=0.0, itm=1.0, itm_negatives="random", itm_pairs=3)
    task = RetrievalTask.from_context(TaskContext(settings, TINY, tokenizer, 40))
    assert task.weights == {"mlm": 0.0, "itc": 0.0, "itm": 1.0}
    assert (task.itm_negatives, task.itm_pairs) == ("random", 3)
    assert task.switched_off == {Embedding}
    assert isinstance(task, Matching)
