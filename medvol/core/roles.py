"""The five roles. A plug-in inherits from one of them.

Constructors only store settings: cheap, offline, every parameter typed and without ``**kwargs``, so that a component
can be named in YAML and described without importing anything heavy. Weights load at first use. A component's module
must not import torch or another heavy library at its top.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from medvol.core.case_dataset import CaseDataset as CaseDataset
from medvol.core.errors import ConfigError
from medvol.core.prompts import Prompt, PromptSize, PromptTemplate
from medvol.core.specs import Component, describe_component
from medvol.core.types import Case, Completion, Evidence, Rollout, Sampling, Volume

if TYPE_CHECKING:
    import torch

    from medvol.core.served_form import ServedForm
    from medvol.core.training_data import TrainingData

Need = Literal["text", "evidence", "mask"]
Aspect = Literal["form", "slice", "boxes", "mask"]
"""What can be wrong with an answer: its layout, the choice of the key slice, the boxes for that slice, the mask."""


class Policy(Component):
    """Reads slices and a query, writes an answer."""

    component_kind = "policies"

    needs_truth: ClassVar[bool] = False
    """True for an oracle: its prompts then carry the true anchor."""

    needs_volume: ClassVar[bool] = False
    """True for a policy that looks at more than the slices shown: its prompts then carry the scan."""

    training_data: TrainingData | None = None
    """What it was trained on; None when that is not known. Training sets it, and so does a model folder that tells."""

    @property
    def inner(self) -> Policy:
        """The policy that has the network: this one, or the one that it asks."""
        return self

    @property
    def template(self) -> PromptTemplate:
        """Layout of the prompts that this policy reads."""
        return PromptTemplate()

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], n: int = 1, sampling: Sampling | None = None
    ) -> list[list[Completion]]:
        """Write ``n`` completions for every prompt.

        Args:
            prompts: Questions; those that hold the same slices share one prefix.
            n: Completions a prompt.
            sampling: Greedy when None.

        Returns:
            One list of ``n`` completions for each prompt, in order.
        """


class TrainablePolicy(Policy):
    """A policy with parameters.

    Its constructor has a parameter ``model``: the path of a folder that ``save`` wrote, or None. A folder is opened
    with that and with the settings that it keeps, see ``folder_settings``.
    """

    @property
    def training_data(self) -> TrainingData | None:
        """What it was trained on, as training or its model folder tells; None for published weights.

        Raises:
            CheckpointError: The folder's file does not hold what it should.
        """
        known: TrainingData | None = vars(self).get("_training_data")
        model = vars(self).get("model")
        if known is None and isinstance(model, str | Path):
            from medvol.core.training_data import read_training_data

            known = self.training_data = read_training_data(model)
        return known

    @training_data.setter
    def training_data(self, data: TrainingData | None) -> None:
        vars(self)["_training_data"] = data

    @abstractmethod
    def load(self) -> torch.nn.Module:
        """Build the network and load its weights on the first call; return the same network afterwards.

        A fit puts it into training mode as a whole; ``generate`` works in evaluation mode, and goes back.
        """

    def load_for_training(self) -> torch.nn.Module:
        """The network, with what is trained in float32: small steps are lost in a narrower type, and a fit stops then.

        Called before an optimiser is made or weights of a checkpoint are loaded, perhaps more than once.
        """
        return self.load()

    @abstractmethod
    def encode(self, text: str) -> Completion:
        """Turn an answer into the tokens that the policy would write, end token included."""

    @abstractmethod
    def log_probs(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[Completion]], temperature: float = 1.0
    ) -> list[list[torch.Tensor]]:
        """Log-probability of every token of every completion, with gradient.

        Args:
            prompts: Questions; those that hold the same slices are packed behind one prefix.
            completions: For each prompt, the completions to score.
            temperature: Above 0; scores are those of sampling at this temperature.

        Returns:
            For each prompt and completion a float tensor (T,), all <= 0.
        """

    @abstractmethod
    def reference_log_probs(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[Completion]], temperature: float = 1.0
    ) -> list[list[torch.Tensor]]:
        """The same under the reference policy (the weights at the start of training), without gradient."""

    def name_reference(self) -> str | None:
        """Hash of the reference's weights where a checkpoint of the policy does not hold them; None elsewhere."""
        return None

    @abstractmethod
    def trainable_parameters(self) -> Iterable[torch.nn.Parameter]:
        """Parameters that an optimiser may change."""

    def measure_prompt(self, prompt: Prompt) -> PromptSize | None:
        """Count what a prompt fills; None when the policy cannot tell.

        GRPO refuses to start when image tokens and image features disagree, or when prompt and answer do not fit.
        """
        return None

    def served_form(self) -> ServedForm | None:
        """What another program has to know to answer in this policy's place; None when none can."""
        return None

    def folder_settings(self) -> Mapping[str, Any]:
        """Settings, as plain values, with which a saved folder is opened again beside ``model``, the folder itself."""
        settings: dict[str, Any] = describe_component(self)["settings"]
        return {name: value for name, value in settings.items() if name != "model"}

    @abstractmethod
    def write_weights(self, folder: Path) -> None:
        """Write weights (safetensors), and all else that the constructor needs to load them as ``model``.

        Args:
            folder: Empty; ``save`` adds what medvol knows of it.
        """

    def write_adapter(self, folder: Path) -> None:
        """Write what was trained beside frozen weights into an empty folder, without these.

        Raises:
            ConfigError: There is no adapter.
        """
        raise ConfigError(f"this {type(self).__name__} trains its weights and no adapter; leave --adapter out")

    def save(self, folder: str | Path, adapter: bool = False) -> None:
        """Write a model folder that ``--policy`` and the setting ``model`` take; an older one is replaced as a whole.

        Args:
            folder: Where it is written.
            adapter: Write the adapter alone.

        Raises:
            CheckpointError: There is something of that name that is no model folder.
        """
        from medvol.core.model_folder import write_model_folder

        spec = {**describe_component(self), "settings": dict(self.folder_settings())}
        write = self.write_adapter if adapter else self.write_weights
        write_model_folder(Path(folder), write, spec, self.template.to_dict(), self.training_data)


class Propagator(Component):
    """Turns an evidence anchor into a 3D mask; frozen and deterministic."""

    component_kind = "propagators"

    @abstractmethod
    def propagate(
        self, volume: Volume, evidence: Evidence, z_range: tuple[int, int] | None = None
    ) -> NDArray[np.bool_]:
        """Follow the boxes of the key slice through the volume.

        Args:
            volume: The scan.
            evidence: Anchor; an absent one gives an empty mask.
            z_range: Half-open range of slices to fill, which may reach beyond the volume; the whole volume when None.

        Returns:
            Mask (Z, Y, X) bool on the volume's grid, the union over the boxes, False outside ``z_range``.

        Raises:
            PropagationError: It failed; the message names the volume and the anchor.
        """

    def propagate_many(
        self,
        volume: Volume,
        evidences: Sequence[Evidence],
        z_ranges: Sequence[tuple[int, int] | None] | None = None,
    ) -> list[NDArray[np.bool_]]:
        """Propagate several anchors of one volume; equal to one at a time.

        Args:
            volume: The scan.
            evidences: Anchors, with different key slices or not.
            z_ranges: Half-open range of slices that may be filled, one an anchor, None in it for the whole volume; the
                whole volume for all when None.

        Raises:
            PropagationError: One of them failed.
        """
        ranges = [None] * len(evidences) if z_ranges is None else z_ranges
        return [self.propagate(volume, evidence, own) for evidence, own in zip(evidences, ranges, strict=True)]


class RewardTerm(Component):
    """Scores one rollout against its case."""

    component_kind = "rewards"

    needs: ClassVar[frozenset[Need]] = frozenset({"text"})
    """What is read from the rollout; without ``mask`` in any weighted term nothing is propagated."""

    judges: ClassVar[frozenset[Aspect] | None] = None
    """Aspects in which a worse answer has to score less, as ``medvol.audit_rewards`` tests; None: what it reacts to."""

    @property
    def mask_delta(self) -> int | None:
        """Slices beside the key slice in which the mask is read, which alone are propagated; None when all of it is."""
        return None

    @abstractmethod
    def __call__(self, rollout: Rollout, case: Case) -> float:
        """Score in [0, 1]; 0 for an answer that could not be parsed (a term that reads the text only may grade it)."""


class RolloutEngine(Component):
    """Says where the completions of a training step come from.

    A fit calls ``start`` before its first step. In every step it calls ``sync``, asks for completions, and calls
    ``rest``; at the end, also after an error, ``stop``. All processes do so together, each asking for its own groups.
    """

    component_kind = "engines"

    in_process: ClassVar[bool] = False
    """True when the policy itself answers: no weights have to be brought anywhere, and no log-probabilities differ."""

    @abstractmethod
    def start(self, policy: TrainablePolicy) -> Policy:
        """Get ready.

        Args:
            policy: Trained; its network is loaded.

        Returns:
            Who is asked for completions from now on. Its completions carry the log-probabilities at sampling.

        Raises:
            ConfigError: The engine cannot answer in the place of this policy.
            EngineError: It does not start, or does not answer.
        """

    def sync(self) -> None:
        """Let all further completions come from the weights that the policy has now.

        Raises:
            EngineError: The weights could not be brought over.
        """

    def rest(self) -> None:
        """Make room for the update: no completion is asked for before the next ``sync``."""

    def stop(self) -> None:
        """End what ``start`` began; may be called when it was not."""
