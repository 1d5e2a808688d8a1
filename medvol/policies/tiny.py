"""TinyPolicy: a Qwen3-VL of about three million parameters that trains from random weights on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from medvol.core.bundled import hint_at_checkpoint, model_folder
from medvol.core.errors import CheckpointError
from medvol.core.notices import tell_once
from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.types import Completion, SliceStack
from medvol.policies.gaze_target import Gaze
from medvol.policies.scratch import ScratchPolicy
from medvol.policies.vlm.drawings import by_slices, group, ungroup
from medvol.policies.vlm.policy import VLMPolicy

if TYPE_CHECKING:
    import torch

    from medvol.policies.vlm.gaze import Look
    from medvol.policies.vlm.network import VLMNetwork


class TinyPolicy(VLMPolicy, ScratchPolicy):
    """A small vision-language model that needs no download; it runs the code that the published Qwen models run.

    Args:
        model: Folder of a tiny policy that was trained before, or ``bundled:base`` or ``bundled:best``, which come with
            medvol; None builds one with random weights.
        template: Layout of the prompts; the sides of a slice are multiples of 24 px. A folder brings its own.
        seed: Seed of the random weights. None takes that of the experiment (``seed_everything``); in Python it is 0.
        query_banks: YAML files of queries whose words the tokenizer should know too, when it is built.
        freeze_vision: Leave the vision tower out of training.
        words: Asks queries with words that training never met in a known phrasing instead, the nearest one in meaning
            to a sentence encoder: ``minilm`` (extra ``words``), or a folder with an encoder of BERT's kind; None asks
            every query as it is, and so does training.
    """

    def __init__(
        self,
        model: str | None = None,
        template: PromptTemplate | None = None,
        seed: int | None = None,
        query_banks: Sequence[str] = (),
        freeze_vision: bool = False,
        words: str | None = None,
    ) -> None:
        super().__init__(template=template, freeze_vision=freeze_vision)
        self.model = model
        self.seed = 0 if seed is None else seed
        self.query_banks = tuple(query_banks)
        self.words = words

    def folder_settings(self) -> Mapping[str, Any]:
        """The encoder, where there is one; a folder holds the weights and the tokenizer that seed and banks gave."""
        return {} if self.words is None else {"words": self.words}

    def identity(self) -> Mapping[str, Any]:
        """Name, origin and sha256 of the weights as they are now, and the encoder's sha256, where there is one."""
        if self.words is None:
            return super().identity()
        from medvol.policies.sentence_encoder import encoder_sha256

        return {**super().identity(), "words": encoder_sha256(self.words)}

    def require_ready(self) -> None:
        """Find the folder and the encoder, where they are given.

        Raises:
            CheckpointError: There is no such folder, or no such encoder.
            MissingExtraError: The encoder is not installed.
        """
        if self.words is not None:
            from medvol.policies.sentence_encoder import find_encoder

            find_encoder(self.words)
        if self.model is not None and not model_folder(self.model).is_dir():
            hint = hint_at_checkpoint(self.model)
            raise CheckpointError(f"there is no model folder {self.model!r}; leave model out for random weights{hint}")

    def load_for_training(self) -> VLMNetwork:
        """See ``VLMPolicy``; training teaches the words of a query, which is asked as it is, whatever ``words``."""
        network = super().load_for_training()
        if self.words is not None:
            tell_once(f"words is {self.words!r}: in training, every query is asked as it is")
            network.layout.reword = None
        return network

    def build_network(self) -> VLMNetwork:
        """Load the folder, or draw the weights.

        Raises:
            CheckpointError: There is no such folder.
        """
        self.require_ready()
        network = self._load_or_draw()
        if self.words is not None:
            from medvol.policies.known_phrasings import KnownPhrasings
            from medvol.policies.sentence_encoder import SentenceEncoder
            from medvol.queries.query_bank import RELEASE_BANK, QueryBank

            bank = QueryBank.load(RELEASE_BANK, *self.query_banks)
            known = None if self.training_data is None else self.training_data.words or None
            network.layout.reword = KnownPhrasings(SentenceEncoder(self.words), bank, known).say
        return network

    def _load_or_draw(self) -> VLMNetwork:
        """The network of the folder, or one of random weights."""
        if self.model is None:
            from medvol.policies.tiny_network import TINY_TEMPLATE, build_tiny
            from medvol.queries.query_bank import QueryBank

            return build_tiny(self._template or TINY_TEMPLATE, QueryBank.load(*self.query_banks), self.seed)
        from medvol.policies.vlm.folder import load_network

        return load_network(model_folder(self.model), self._template, "float32", ("qwen2_5_vl", "qwen3_vl"))

    def log_probs_and_gaze(
        self, prompts: Sequence[Prompt], answers: Sequence[Completion], gazes: Sequence[Sequence[Gaze]]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Score answers, and read the attention of the layer in the middle."""
        from medvol.policies.vlm.gaze import score_with_gaze

        drawings = by_slices(prompts)
        looks = [[self._looks(answers[i], gazes[i]) for i in members] for _, members in drawings]
        grouped, shares = score_with_gaze(
            self.load(), group(drawings, prompts, [[answer] for answer in answers]), looks
        )
        return [rows[0] for rows in ungroup(drawings, grouped)], shares

    def slice_encoder(self) -> torch.nn.Module:
        """The projector behind the vision tower."""
        merger: torch.nn.Module = self.load().model.model.visual.merger
        return merger

    def encode_slices(self, stacks: Sequence[SliceStack]) -> torch.Tensor:
        """Features of every image token, as the language model gets them."""
        import torch

        return torch.cat(list(self.load().see(stacks).pooler_output))

    def _looks(self, answer: Completion, gazes: Sequence[Gaze]) -> list[Look]:
        """Token, slice and mask of every token that writes a piece of the answer with a gaze."""
        coded = self.load().layout.spell(answer.text)
        return [
            (token, gaze.position, gaze.mask)
            for gaze in gazes
            for token, (first, last) in enumerate(coded["offset_mapping"])
            if first < gaze.stop and last > gaze.start
        ]
