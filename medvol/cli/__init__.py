"""The command line: one verb, then its arguments.

A verb's module is imported when the verb is used, so ``--help``, ``--version``, ``list`` and ``describe`` start without
torch. Every error that a user can cause is one sentence on stderr and exit code 2; ``--debug``, or ``MEDVOL_DEBUG=1``,
shows the traceback instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version

from medvol.cli.json_document import keep_stdout
from medvol.cli.namesake import require_alone
from medvol.cli.streams import prepare_streams
from medvol.core.errors import CASE_ERRORS, ConfigError, MedvolError, explain_os_error
from medvol.core.suggestions import suggest
from medvol.core.visible_text import show
from medvol.terminal.displays import StderrDisplay
from medvol.terminal.progress import show_progress
from medvol.terminal.stops import Terminated, hear_stops

CASE_FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130
TERMINATED = 143

_TRAINS = "experiment"
"""Module whose verbs hear stops in their own way, at the end of a step."""


@dataclass(frozen=True)
class Verb:
    """Something that ``medvol`` does.

    Args:
        summary: One line of the help.
        module: Module of ``medvol.cli`` whose ``run(verb, arguments)`` does it and returns the exit code.
    """

    summary: str
    module: str


VERBS = {
    "demo": Verb("draw a scan and answer three questions about it: medvol demo", "demo"),
    "fit": Verb("train a policy: medvol fit --config experiment.yaml", "experiment"),
    "validate": Verb("score the validation cases of an experiment", "experiment"),
    "test": Verb("score the test cases of an experiment and write evaluation.json", "experiment"),
    "predict": Verb("answer the predict cases of an experiment", "experiment"),
    "segment": Verb('answer a query about a scan: medvol segment SCAN "QUERY" --policy MODEL', "segment"),
    "view": Verb("see an answer, move a box, get the mask again: medvol view FOLDER", "view"),
    "list": Verb("list policies, propagators, rewards and data sets, plug-ins included", "components"),
    "describe": Verb("show the settings of one component: medvol describe NAME", "components"),
    "convert": Verb("write a checkpoint as a model folder: medvol convert FILE FOLDER", "convert"),
    "push": Verb("publish a model folder on the Hugging Face hub: medvol push FOLDER OWNER/NAME", "push"),
    "check": Verb("check a scan, a folder of scans, or the data sets of an experiment", "check"),
    "plan": Verb("say what a training step needs before it is run: medvol plan experiment.yaml", "plan"),
    "evaluate": Verb("score masks of any system: medvol evaluate --predictions DIR --data FILE", "evaluate"),
    "rescore": Verb("score a run again from what it kept, without its model", "rescore"),
    "report": Verb("show the evaluations of one or several runs side by side", "report"),
    "completion": Verb("print what a shell completes commands with: medvol completion bash", "completion"),
    "new": Verb("write a plug-in with components of your own: medvol new plugin NAME", "new"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Arguments after the program's name; those of the process when None.

    Returns:
        Exit code: 0 done, 1 a case failed, 2 an error that the user can correct, 130 and 143 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("MEDVOL_DEBUG", "0") not in ("", "0")
    prepare_streams()
    try:
        require_alone()
        with show_progress(StderrDisplay()):
            return _dispatch([argument for argument in arguments if argument != "--debug"])
    except MedvolError as error:
        failed_case = isinstance(error, CASE_ERRORS)
        return _refuse(error, " ".join(str(error).split()), debug, CASE_FAILED if failed_case else USER_ERROR)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the reader has gone; nothing more can be said to it
        return 0
    except OSError as error:
        return _refuse(error, explain_os_error(error), debug)
    except KeyboardInterrupt as error:
        code = TERMINATED if isinstance(error, Terminated) else INTERRUPTED
        return _refuse(error, "interrupted", debug, code)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else USER_ERROR
    name, *rest = arguments
    if name == "--version":
        print(f"medvol {version('medvol-r1')}")
        return 0
    if name not in VERBS:
        raise ConfigError(f"there is no verb {name!r}; choices: {', '.join(VERBS)}{suggest(name, VERBS)}")
    module = VERBS[name].module
    hearing: AbstractContextManager[object] = nullcontext() if module == _TRAINS else hear_stops(at_once=True)
    with keep_stdout("--json" in rest), hearing:
        code: int = import_module(f"medvol.cli.{module}").run(name, rest)
    return code


def _refuse(error: BaseException, sentence: str, debug: bool, code: int = USER_ERROR) -> int:
    if debug:
        raise error
    print(f"medvol: {show(sentence)}", file=sys.stderr)
    return code


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        "usage: medvol VERB ...\n\n"
        "A query about a 3D scan, evidence a person can check, a 3D mask.\n\n"
        f"verbs:\n{verbs}\n\n"
        "options:\n"
        "  --help     this text; medvol VERB --help explains a verb\n"
        "  --version  the version\n"
        "  --debug    show the traceback of an error (or set MEDVOL_DEBUG=1)"
    )
