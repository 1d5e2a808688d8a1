"""A reward of your own: written, checked against the contract, registered for this process, and used.

    python examples/custom_reward.py

To publish it, put the class into a package and name it in the entry points of that package's pyproject.toml:

    [project.entry-points."medvol.rewards"]
    VolumeReward = "my_package.volume:VolumeReward"
"""

from typing import ClassVar

import medvol
from medvol.testing import check_reward


class VolumeReward(medvol.RewardTerm):
    """Smaller over larger volume of mask and target: what matters when a tumour is followed over time.

    Args:
        tolerance: Relative difference that still earns the full score.
    """

    needs: ClassVar = frozenset({"evidence", "mask"})

    def __init__(self, tolerance: float = 0.05) -> None:
        self.tolerance = tolerance

    def __call__(self, rollout: medvol.Rollout, case: medvol.Case) -> float:
        """Score the volume; an answer that failed scores 0."""
        if rollout.evidence is None or rollout.mask is None or case.target is None:
            return 0.0
        if rollout.evidence.absent or not case.target.any():
            return float(rollout.evidence.absent and not case.target.any())
        found, true = (int(mask.sum()) for mask in (rollout.mask, case.target))
        return min(1.0, min(found, true) / max(found, true) / (1 - self.tolerance))


def main() -> None:
    """Check the reward, register it, and score four answers to one question."""
    check_reward(VolumeReward())
    medvol.REWARDS.register("VolumeReward", VolumeReward)
    term = medvol.REWARDS.get("VolumeReward")(tolerance=0.1)

    dataset = medvol.DATASETS.get("PhantomDataset")(split="test", num_volumes=1)
    case = next(case for case in map(dataset.__getitem__, range(len(dataset))) if case.query.target == "spleen")
    height, width = case.volume.shape[1:]
    truth = medvol.label_anchor(case.target, rationale="behind the stomach")
    upper_half = truth.boxes.copy()
    upper_half[:, 3] = truth.boxes[:, [1, 3]].mean(axis=1)
    answers = {
        "the true anchor": medvol.format_evidence(truth, height, width),
        "half of the box": medvol.format_evidence(medvol.Evidence(truth.key_slice, upper_half), height, width),
        "nothing there": "<think>I see none</think><answer>[]</answer>",
        "not an answer": "It is on the left.",
    }
    policy = medvol.POLICIES.get("ScriptedPolicy")(answers=list(answers.values()))
    propagator = medvol.PROPAGATORS.get("RegionPropagator")()

    prompt = medvol.build_prompt(case.volume, case.query.text, policy.template)
    print(f"{case.query.text!r} about {case.volume.volume_id}")
    for name, completion in zip(answers, policy.generate([prompt], n=len(answers))[0], strict=True):
        scored = medvol.score(case, completion.text, term, propagator)
        print(f"  {name:<16} {scored.total:.3f}  {scored.failure or ''}")


if __name__ == "__main__":
    main()
