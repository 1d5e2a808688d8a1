"""What ``medvol fit --help`` and its like say first."""

from __future__ import annotations

_WHAT = {
    "fit": "Train the policy of an experiment. The run folder gets the model, checkpoints, curves and the settings.",
    "validate": "Score the validation cases of an experiment and print the means.",
    "test": "Score the test cases of an experiment; writes evaluation.json and cases.json into the run folder.",
    "predict": "Answer the predict cases of an experiment; model.evaluation.save_dir is the folder of the answers.",
}

_EXAMPLES = {
    "fit": ("medvol fit --config examples/quickstart.yaml", "medvol fit --config exp.yaml --trainer.max_steps 100"),
    "validate": (
        "medvol validate --config runs/quickstart/fit.yaml --ckpt_path runs/quickstart/checkpoints/best.ckpt",
    ),
    "test": ("medvol test --config examples/quickstart.yaml --model.policy.model runs/quickstart/model",),
    "predict": ("medvol predict --config exp.yaml --data.predict NiftiDataset --model.evaluation.save_dir answers",),
}


def describe_verb(verb: str) -> dict[str, str]:
    """Description, usage and examples, as arguments of a parser."""
    examples = " | ".join(_EXAMPLES[verb])
    return {
        "description": f"{_WHAT[verb]} An experiment is a YAML file with the keys model, data and trainer; every key "
        "can also be set here, as --trainer.max_steps 100.",
        "usage": f"medvol {verb} --config EXPERIMENT.yaml [--KEY VALUE ...]",
        "epilog": f"For example: {examples}. The settings of one component: medvol describe NAME.",
    }
