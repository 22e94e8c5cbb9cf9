"""The `fiber` command: parses, resolves, and hands over to training, evaluation or inference.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed: input that cannot be used, or an error |
| 2 | wrong usage, or a recipe with errors |
| 75 | training was stopped by SIGTERM, SIGUSR1, SIGHUP or Ctrl-C after saving, `--resume` continues; or by a signal \
before it began |
| 130 | interrupted: Ctrl-C before training began, or twice, or of another command |
| 128 + n | another command was ended by signal n: 143 by SIGTERM, 129 by SIGHUP |

Heavy modules are imported inside the commands' functions, so that `fiber --help` answers at once.
"""

import sys
import warnings
from typing import Annotated

import typer

import fiber_cli
from fiber_cli.cli import (
    ablation,
    data,
    evaluation,
    few_shot,
    inference,
    last_resort,
    models,
    odinw,
    plan,
    preparation,
    recipes,
    scenes,
    sharing,
    table,
    training,
)
from fiber_cli.cli.standard_output import whole_output
from fiber_cli.cli.usage import Commands
from fiber_cli.distributed.rank_report import Report, report
from fiber_cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, UnseenWords, UserError
from fiber_cli.printing import shorten_warnings, show, take_any_text

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich alone takes longer to import than all else
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done; 1 failed; 2 wrong usage or recipe; 75 stopped by a signal after saving, "
    "--resume continues; 130 interrupted; 128 + n another command was ended by signal n.",
)
recipes_app = typer.Typer(rich_markup_mode=None)
models_app = typer.Typer(rich_markup_mode=None)
data_app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Data sets: fetch and check them, pack them into shards, take out what they are tested on.",
)


def print_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        show(f"fiber {fiber_cli.__version__}")
        raise typer.Exit


@app.callback()
def fiber(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """FIBER: vision-language pre-training with fusion in the backbone."""


# In the order in which the help lists them.
app.command("pretrain")(training.pretrain)
app.command("finetune")(training.finetune)
app.command("plan")(plan.plan)
app.command("eval")(evaluation.evaluate)
app.command("odinw")(odinw.odinw)
app.command("ablate")(ablation.ablate)
app.command("few-shot")(few_shot.few_shot)
app.command("rerank")(evaluation.rerank)
app.command("table")(table.table)
app.command("caption")(inference.caption)
app.command("answer")(inference.answer)
app.command("detect", cls=inference.DetectCommand)(inference.detect)
app.command("scenes")(scenes.scenes)
app.command("vqa-answers")(preparation.vqa_answers)
app.command("cider-df")(preparation.cider_df)
app.command("convert")(preparation.convert)
app.command("push")(sharing.push)
app.add_typer(data_app, name="data")
data_app.command("get")(data.get)
data_app.command("check")(data.check)
data_app.command("shard")(data.shard)
data_app.command("dedup")(data.dedup)
app.add_typer(models_app, name="models", invoke_without_command=True)
models_app.callback()(models.list_models)
models_app.command("card")(models.card)
app.add_typer(recipes_app, name="recipes", invoke_without_command=True)
recipes_app.callback()(recipes.list_recipes)
recipes_app.command("show")(recipes.show)
recipes_app.command("schema")(recipes.schema)


def main(argv: list[str] | None = None) -> None:
    """Run the command line and exit."""
    if argv is None:
        argv = sys.argv[1:]
    take_any_text()
    shorten_warnings()
    # Commands say it themselves, before their results.
    warnings.filterwarnings("ignore", category=UnseenWords)
    code: str | int | None = EXIT_FAILED
    try:
        with whole_output():
            app(args=argv, prog_name="fiber", obj=argv)
    except SystemExit as end:
        code = end.code
    except UserError as error:
        report(Report(str(error), error.follows, error.is_told_here))
        code = error.exit_code
    except BrokenPipeError:
        pass  # whoever read standard output is gone
    except OSError as error:
        report(Report(str(error)))
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BaseException as error:  # the tokenizers library's panics are no Exception
        last_resort.tell(error, argv)
    sys.exit(last_resort.flushed(code))
