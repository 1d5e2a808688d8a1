"""``medvol rescore``: metrics and rewards of a run again, from what it kept and without its model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from medvol.cli.measures import add_measures, parse_over, read_measures
from medvol.cli.parsing import ComponentParser
from medvol.cli.path_options import require_path_options
from medvol.cli.run_data import TEST_SETTINGS, find_run_data
from medvol.cli.settings import read_model_settings
from medvol.guarding.cases import count_cases
from medvol.terminal.console import Console
from medvol.terminal.progress import Work

if TYPE_CHECKING:
    from medvol.rollouts.scorer import RewardScorer

MEASURES = ("surface", "tolerance_mm", "lesions")


def run(verb: str, arguments: Sequence[str]) -> int:
    """Score a run again and write its files anew.

    Raises:
        RecordError: The run has no evaluation, or has not kept what is needed.
        ConfigError: A setting is at fault, or a test writes in the run folder.
        DatasetError: The cases cannot be read.
    """
    from medvol.evaluation.kept_masks import KeptMasks
    from medvol.evaluation.run_files import is_evaluated

    parser = _parser(verb)
    options = parser.parse_args(list(arguments))
    require_path_options(options, "RUN", "--data", "--rewards")
    folder = Path(options.run)
    with KeptMasks(folder, 0.0) if is_evaluated(folder) else nullcontext():
        return _rescore(parser, arguments, options)


def _rescore(parser: ComponentParser, arguments: Sequence[str], options: Any) -> int:
    from medvol.evaluation.archive import about_run, read_evaluation, write_evaluation
    from medvol.evaluation.report import report_runs
    from medvol.evaluation.rescoring import rescore

    evaluation = read_evaluation(options.run)
    about = about_run(evaluation)
    options = parse_over(parser, arguments, about["settings"])
    settings = read_measures({**about["settings"], **{name: options[name] for name in MEASURES}})
    dataset = find_run_data(evaluation, options.data)
    rewards = _choose_rewards(options.rewards, evaluation.folder)
    with Work("scoring", count_cases(dataset), "cases") as work:
        scores = rescore(evaluation, dataset, settings, rewards, lambda done: work.advance())
    about["settings"] |= settings.measures
    if options.data is not None:
        about["data"] = {**about.get("data", {}), "config": str(Path(options.data).resolve())}
    for key in ("rewards", "reward_weights"):
        about.pop(key, None)
    if rewards is not None:
        about["rewards"] = {name: repr(term) for name, term in rewards.terms.items()}
        about["reward_weights"] = rewards.weights
    path = write_evaluation(evaluation.folder, scores, about, evaluation.summary["bootstrap_seed"])
    console = Console()
    console.print(report_runs([evaluation.folder]))
    console.print(Text(f"scored again: {path}"), soft_wrap=True)
    return 0


def _parser(verb: str) -> ComponentParser:
    parser = ComponentParser(prog=f"medvol {verb}", description="Score a run again from the words and masks it kept.")
    parser.add_argument("run", type=str, help="run folder with evaluation.json and masks")
    parser.add_argument(
        "--data", type=str | None, default=None, help="YAML file with the data of the test; that of the run else"
    )
    parser.add_argument(
        "--rewards", type=str | None, default=None, help="YAML file with model.rewards; those of the run else"
    )
    add_measures(parser, *MEASURES)
    return parser


def _choose_rewards(given: str | None, folder: Path) -> RewardScorer | None:
    """The reward terms of the file that is given, or of the run's own configuration; None where there are none."""
    from medvol.cli.audit import read_rewards
    from medvol.rollouts.scorer import RewardScorer

    config = str(folder / TEST_SETTINGS) if given is None else given
    if given is None and not _has_rewards(folder / TEST_SETTINGS):
        return None
    return RewardScorer(*read_rewards(config))


def _has_rewards(config: Path) -> bool:
    return config.is_file() and bool(read_model_settings(str(config)).get("rewards"))
