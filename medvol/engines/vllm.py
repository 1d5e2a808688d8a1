"""VLLMEngine: vLLM in the process that trains, on the same GPU."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medvol.core.containment import contained, say
from medvol.core.errors import ConfigError, EngineError, MedvolError, MissingExtraError
from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.ranges import require_between, require_whole
from medvol.core.roles import Policy, RolloutEngine, TrainablePolicy
from medvol.core.served_form import ServedForm
from medvol.core.types import Completion, Sampling
from medvol.engines.vllm_parts.engine_policy import EnginePolicy
from medvol.engines.vllm_parts.sampling import read_answer, require_length, sampling_fields, served_form_of

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM makes room for."""


class VLLMEngine(RolloutEngine):
    """vLLM beside the training, in every process on its own GPU (extra ``vllm``).

    In each step all weights are handed over in memory, or, with ``lora_rank``, the adapters as a folder; vLLM then
    forgets the prompts that it read with the old ones.

    Args:
        gpu_share: Share of the GPU's memory that vLLM may take, weights included.
        max_model_len: Most tokens of a prompt and its answer; None takes the model's own limit, which may be more than
            there is memory for.
        max_sequences: Most completions that are written at a time; None leaves it to vLLM.
        sleep: Move vLLM's weights to the memory of the host during the update.
        eager: Do without CUDA graphs: it starts faster and writes slower.
        folder: Where a model folder is written at the start, and the adapters in each step; None takes the system's
            temporary folder.
    """

    def __init__(
        self,
        gpu_share: float = 0.3,
        max_model_len: int | None = None,
        max_sequences: int | None = None,
        sleep: bool = False,
        eager: bool = False,
        folder: str | None = None,
    ) -> None:
        require_between("(0, 1)", "engine", gpu_share=gpu_share)
        require_whole(1, "engine", max_model_len=max_model_len, max_sequences=max_sequences)
        self.gpu_share = gpu_share
        self.max_model_len = max_model_len
        self.max_sequences = max_sequences
        self.sleep = sleep
        self.eager = eager
        self.folder = folder
        self._place: Path | None = None
        self._form: ServedForm | None = None
        self._llm: Any = None
        self._adapter: Any = None
        self._asleep = False

    def require_ready(self) -> None:
        """Find vLLM."""
        if find_spec("vllm") is None:
            raise MissingExtraError("vllm", "vllm")

    def start(self, policy: TrainablePolicy) -> Policy:
        """Write a model folder of the policy as it is, and start vLLM on it."""
        self.stop()
        self.require_ready()
        self._form = form = served_form_of(self, policy)
        self._place = Path(tempfile.mkdtemp(prefix="medvol-engine-", dir=self.folder))
        try:
            self._llm = self._start_vllm(form, self._place / "base", policy)
        except BaseException:
            self.stop()
            raise
        return EnginePolicy(self.sample, policy.template)

    def sync(self) -> None:
        """Hand the weights over, and have vLLM forget the prompts that it has read."""
        form, llm = self._started()
        with contained(lambda error: EngineError(f"vLLM did not take the new weights: {say(error)}"), MedvolError):
            if self._asleep:
                llm.wake_up()
                self._asleep = False
            if form.adapter_rank:
                self._hand_over_adapter(form)
            else:
                llm.collective_rpc("reload_weights", kwargs={"weights_iterator": form.weights()})
            if not llm.reset_prefix_cache():
                raise EngineError("vLLM did not forget the prompts that it read with the old weights")

    def rest(self) -> None:
        """Free the GPU for the update, if ``sleep`` is set."""
        if self.sleep and self._llm is not None and not self._asleep:
            self._llm.sleep(level=1)
            self._asleep = True

    def stop(self) -> None:
        """Let go of vLLM and of its folders."""
        self._llm = self._adapter = self._form = None
        self._asleep = False
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)
            self._place = None

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[list[Completion]]:
        """Write ``n`` completions for each prompt, with the weights of the last ``sync``."""
        from vllm import SamplingParams

        form, llm = self._started()
        spelled = [form.spell(prompt) for prompt in prompts]
        limit = int(llm.model_config.max_model_len)
        for ids in spelled:
            require_length(ids, limit, sampling, "engine.max_model_len")
        asked = [
            {
                "prompt_token_ids": join_places(ids, form.image_id),
                "multi_modal_data": {"image": form.pictures(prompt)},
            }
            for ids, prompt in zip(spelled, prompts, strict=True)
        ]
        fields = [SamplingParams(**sampling_fields(form, sampling, n, place)) for place in range(len(prompts))]
        with contained(lambda error: EngineError(f"vLLM did not answer: {say(error)}"), MedvolError):
            outputs = llm.generate(asked, sampling_params=fields, use_tqdm=False, lora_request=self._adapter)
            return [[_read(form, one, sampling) for one in output.outputs] for output in outputs]

    def _start_vllm(self, form: ServedForm, base: Path, policy: TrainablePolicy) -> Any:
        """Write a model folder and start vLLM on it."""
        base.mkdir()
        form.write_base(base)
        refuse = contained(lambda error: EngineError(f"vLLM does not start: {say(error)}"), MedvolError)
        with _own_process(policy), refuse:
            from vllm import LLM

            return LLM(**self._llm_settings(form, base, policy.template))

    def _hand_over_adapter(self, form: ServedForm) -> None:
        """Write the adapters and name them anew: vLLM reads a name once."""
        from vllm.lora.request import LoRARequest

        assert self._place is not None, "start made it"
        number = 1 if self._adapter is None else self._adapter.lora_int_id + 1
        shutil.rmtree(self._place / f"adapter-{number - 1}", ignore_errors=True)
        folder = self._place / f"adapter-{number}"
        folder.mkdir()
        form.write_adapter(folder)
        self._adapter = LoRARequest(lora_name=folder.name, lora_int_id=number, lora_path=str(folder))

    def _llm_settings(self, form: ServedForm, base: Path, template: PromptTemplate) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "model": str(base),
            "dtype": form.kind,
            "seed": 0,
            "trust_remote_code": False,
            "generation_config": "vllm",
            "logprobs_mode": "processed_logprobs",
            "distributed_executor_backend": "external_launcher",
            "gpu_memory_utilization": self.gpu_share,
            "max_model_len": self.max_model_len,
            "max_num_seqs": self.max_sequences,
            "enforce_eager": self.eager,
            "enable_sleep_mode": self.sleep,
            "enable_prefix_caching": True,
            "limit_mm_per_prompt": {"image": template.num_slices, "video": 0},
            "mm_processor_kwargs": {"do_rescale": False},  # slices are in [0, 1] already,
            "mm_device_do_normalize": False,  # and keep their fractions: else vLLM normalises bytes on the GPU
        }
        if form.adapter_rank:
            room = next((rank for rank in _RANKS if rank >= form.adapter_rank), None)
            if room is None:
                raise ConfigError(f"lora_rank is {form.adapter_rank}, and vLLM takes at most {_RANKS[-1]}; lower it")
            settings |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}
        return settings

    def _started(self) -> tuple[ServedForm, Any]:
        if self._form is None or self._llm is None:
            raise EngineError("VLLMEngine was not started; a fit starts it before its first step")
        return self._form, self._llm


def _read(form: ServedForm, output: Any, sampling: Sampling) -> Completion:
    ids = [int(token) for token in output.token_ids]
    log_probs = [float(row[token].logprob) for token, row in zip(ids, output.logprobs or (), strict=False)]
    return read_answer(form, ids, log_probs, output.finish_reason, sampling)


def join_places(token_ids: Sequence[int], image_id: int) -> list[int]:
    """A prompt with one image token a slice, which vLLM makes as many of as the slice needs."""
    return [token for i, token in enumerate(token_ids) if token != image_id or i == 0 or token_ids[i - 1] != image_id]


@contextmanager
def _own_process(policy: TrainablePolicy) -> Iterator[None]:
    """Tell vLLM by the environment where it runs: in this process, on the GPU of the policy, alone."""
    from torch import distributed

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    shared = distributed.is_available() and distributed.is_initialized()
    device = next(iter(policy.load().parameters())).device
    told = {
        "LOCAL_RANK": str(device.index or 0),
        "RANK": str(distributed.get_rank() if shared else 0),
        "WORLD_SIZE": str(distributed.get_world_size() if shared else 1),
    }
    if not shared:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    before = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
