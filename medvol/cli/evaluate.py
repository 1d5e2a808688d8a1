"""``medvol evaluate``: masks of any system, scored on the cases of an experiment under the rules of our own runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rich.text import Text

from medvol.cli.measures import add_measures, parse_over, read_measures
from medvol.cli.parsing import ComponentParser
from medvol.cli.path_options import require_path_options
from medvol.cli.settings import FILE_SUFFIXES, read_config, read_model_settings
from medvol.core.atomic_files import PARTIAL, find_leftover
from medvol.core.errors import ConfigError
from medvol.core.json_file import parse_json, read_json
from medvol.core.words import split_words
from medvol.guarding.cases import count_cases
from medvol.queries.query_bank import target_name
from medvol.terminal.console import Console
from medvol.terminal.progress import Work

if TYPE_CHECKING:
    from medvol.core.roles import CaseDataset
    from medvol.evaluation.case_score import CaseScore
    from medvol.evaluation.imported.matching import MaskIndex

Split = Literal["train", "val", "test", "predict"]

MEASURES = ("surface", "tolerance_mm", "lesions", "masks_gib")

_LISTED = 100
"""Unused masks that ``evaluation.json`` names; it counts all."""


def run(verb: str, arguments: Sequence[str]) -> int:
    """Score the masks of a folder and write a run that ``medvol report`` reads.

    Raises:
        ConfigError: A setting is at fault, or the run folder is not free.
        DatasetError: No mask fits a question, or several fit one.
        ScanError: A mask cannot be read.
        GeometryError: A mask lies on another grid than its scan.
    """
    options = _parse(verb, arguments)
    folder, out = _choose_folders(options)
    sources = _name_sources(options)
    _require_free(out, folder, sources)
    settings = read_measures({name: options[name] for name in MEASURES})
    dataset = _choose_split(options)

    from medvol.evaluation.archive import write_evaluation
    from medvol.evaluation.imported.layouts import LAYOUTS, find_masks
    from medvol.evaluation.imported.matching import MaskIndex
    from medvol.evaluation.imported.scoring import score_masks
    from medvol.evaluation.kept_masks import KeptMasks
    from medvol.evaluation.report import report_runs

    layout, found = find_masks(folder, options.layout)
    index = MaskIndex(found, dataset, names := _read_names(options.names))
    with KeptMasks(out, settings.masks_gib) as kept:
        with Work("scoring", count_cases(dataset), "cases") as work:
            scores = score_masks(dataset, index, settings, kept, options.resample, lambda done: work.advance())
        _require_used(index, scores)
        about = {
            "predictions": {
                **sources["predictions"],
                "layout": layout,
                "names": names,
                "resample": options.resample,
                "unused": index.unused[:_LISTED],
                "unused_count": len(index.unused),
                "remarks": index.remarks,
            },
            "data": sources["data"],
            "settings": settings.measures,
        }
        path = write_evaluation(out, scores, about, masks=kept)
    console = Console()
    console.print(Text(f"layout {layout}: {LAYOUTS[layout]}"), soft_wrap=True)
    console.print(report_runs([out]))
    for line in _remarks(index, scores):
        console.print(Text(line), soft_wrap=True)
    report = f"medvol report RUN {shlex.quote(str(out))}"
    console.print(Text(f"means and intervals: {path}; beside other runs: {report}"), soft_wrap=True)
    return 0


def _parse(verb: str, arguments: Sequence[str]) -> Any:
    """Options, over the settings of what is measured that the experiment has."""
    parser = _parser(verb)
    options = parser.parse_args(list(arguments))
    require_path_options(options, "--predictions", "--data", "--out")
    return parse_over(parser, arguments, _settings_of(options.data))


def _parser(verb: str) -> ComponentParser:
    from medvol.evaluation.imported.layouts import LayoutName

    parser = ComponentParser(
        prog=f"medvol {verb}", description="Score masks that any system wrote on the cases of an experiment."
    )
    parser.add_argument("--predictions", type=str, required=True, help="folder of the masks")
    parser.add_argument("--data", type=str, required=True, help="YAML file of an experiment, whose data are asked")
    parser.add_argument("--split", type=Split, default="test", help="cases of the data that are scored")
    parser.add_argument(
        "--layout", type=LayoutName | None, default=None, help="how the masks are laid out; told by the folder else"
    )
    parser.add_argument(
        "--names",
        type=str | None,
        default=None,
        help='what the system calls targets: JSON such as {"kidneys": ["kidney_left", "kidney_right"]}, or its file',
    )
    parser.add_argument("--resample", action="store_true", help="take the nearest label of masks on another grid")
    parser.add_argument(
        "--out", type=str | None, default=None, help="run folder; runs/ and the name of the masks' else"
    )
    add_measures(parser, *MEASURES)
    return parser


def _choose_folders(options: Any) -> tuple[Path, Path]:
    """Folder of the masks, and run folder."""
    folder = Path(options.predictions)
    return folder, Path("runs") / folder.resolve().name if options.out is None else Path(options.out)


def _name_sources(options: Any) -> dict[str, dict[str, str]]:
    """What is scored, by whole paths, as ``evaluation.json`` has it."""
    return {
        "predictions": {"folder": str(Path(options.predictions).resolve())},
        "data": {"config": str(Path(options.data).resolve()), "split": options.split},
    }


def _settings_of(config: str) -> dict[str, Any]:
    """Settings of the evaluation that the experiment's own model has, so that both are measured alike."""
    evaluation = read_model_settings(config).get("evaluation")
    return evaluation if isinstance(evaluation, dict) else {}


def _choose_split(options: Any) -> CaseDataset:
    from medvol.cli.experiment_data import build_data

    dataset = build_data(options.data).splits[options.split]
    if dataset is None:
        raise ConfigError(
            f"{options.data!r} has no {options.split} cases; choose another --split of {', '.join(get_args(Split))}"
        )
    return dataset


def _read_names(given: str | None) -> dict[str, list[str]]:
    """Names by target, from JSON or from a file of it.

    Raises:
        ConfigError: It holds something else.
    """
    if given is None:
        return {}
    try:
        content = read_config(given) if given.endswith(FILE_SUFFIXES) else parse_json(given)
    except ConfigError as error:
        raise ConfigError(f"--names: {error}") from error
    except ValueError as error:
        raise ConfigError(f"--names is JSON or a file of it; got {given!r:.200} ({error})") from error
    if not isinstance(content, dict) or not all(map(split_words, content)):
        raise ConfigError(f"--names holds {content!r:.80}; give names by target")
    names: dict[str, list[str]] = {}
    for target, value in content.items():
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list) or not parts or not all(map(_is_name, parts)):
            raise ConfigError(f"--names says {value!r:.80} for {target!r:.80}; give a name, or a list of names")
        if target_name(target) in names:
            raise ConfigError(f"--names has {target_name(target)!r:.80} twice, in two spellings; keep one")
        names[target_name(target)] = parts
    return names


def _is_name(part: Any) -> bool:
    return isinstance(part, str) and bool(split_words(part))


def _require_free(out: Path, predictions: Path, sources: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse a run folder that holds something else than an earlier evaluation of the same masks on the same cases."""
    if out.resolve().is_relative_to(predictions.resolve()):
        raise ConfigError(f"--out {str(out)!r} lies in the folder of the masks; choose another folder")
    place = out / "evaluation.json"
    summary: Path | None = place
    if not place.is_file():
        if not out.exists() or (out.is_dir() and all(map(_is_leftover, out.iterdir()))):
            return
        summary = find_leftover(out, place.name)  # killed when only some of the files had been moved to their places
    about = None if summary is None else read_json(summary, "", "choose another folder")
    if not isinstance(about, dict) or "predictions" not in about:
        raise ConfigError(f"--out {str(out)!r} holds something else than an evaluation of masks; choose another folder")
    _require_same_sources(out, about, sources)


def _require_same_sources(out: Path, about: Mapping[str, Any], sources: Mapping[str, Mapping[str, str]]) -> None:
    for part, named in sources.items():
        known = about.get(part)
        for key, value in named.items():
            earlier = known.get(key) if isinstance(known, dict) else None
            if earlier != value:
                raise ConfigError(
                    f"{str(out)!r} holds an evaluation whose {part}.{key} is {earlier!r}, and this one's is {value!r}; "
                    "name another --out"
                )


def _is_leftover(path: Path) -> bool:
    """Whether a killed evaluation leaves such a file."""
    from medvol.evaluation.kept_masks import STAGED

    return path.name == STAGED or path.name.startswith(PARTIAL)


def _require_used(index: MaskIndex, scores: Sequence[CaseScore]) -> None:
    if not index.is_used and index.strangers:
        raise ConfigError(
            f"no scan is called {index.strangers}; the scans are called {index.scans}: rename the files of the masks "
            "after their scans"
        )
    if not index.is_used:
        from medvol.evaluation.imported.layouts import NAMES_FILE

        way = "--names maps targets to names"
        if index.has_scans:
            way = f"if they are label maps, put {NAMES_FILE} with the names of the labels there"
        raise ConfigError(
            f"no mask answers any of {len(scores)} questions: masks are called {index.called}, and the first question "
            f"is {scores[0].case_id!r} about {scores[0].target or scores[0].query!r}; {way}"
        )


def _remarks(index: MaskIndex, scores: Sequence[CaseScore]) -> list[str]:
    """What has no mask, and what answers nothing."""
    missing = [score for score in scores if score.failure]
    lines = index.remarks
    if missing:
        first = f"{missing[0].case_id}: {missing[0].detail}"
        lines.append(f"{len(missing)} of {len(scores)} questions have no mask and count as 0, such as {first}")
    if index.unused:
        some = ", ".join(index.unused[:5]) + (", ..." if len(index.unused) > 5 else "")
        lines.append(f"{len(index.unused)} masks answer no question: {some}")
    return lines
