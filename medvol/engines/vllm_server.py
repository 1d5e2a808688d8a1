"""VLLMServerEngine: a vLLM server on devices of its own, in an environment of its own."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medvol.core.atomic_files import write_whole_folder
from medvol.core.errors import EngineError, MissingExtraError
from medvol.core.prompts import Prompt
from medvol.core.ranges import require_between
from medvol.core.roles import Policy, RolloutEngine, TrainablePolicy
from medvol.core.served_form import ServedForm
from medvol.core.server_address import require_address
from medvol.core.types import Completion, Sampling
from medvol.engines.vllm_parts.connection import Connection
from medvol.engines.vllm_parts.engine_policy import EnginePolicy
from medvol.engines.vllm_parts.sampling import read_answer, require_length, sampling_fields, served_form_of
from medvol.engines.vllm_parts.slices_on_the_wire import find_places, pack_slices

log = logging.getLogger(__name__)

_AT_ONCE = 16
"""Requests that wait for an answer at a time, of each process."""

_FINAL_ONLY = 2
"""``RequestOutputKind.FINAL_ONLY``; otherwise a server gives only the completion that ended last."""

_TOKENS = "--enable-scale-out"
_DEV = "VLLM_SERVER_DEV_MODE=1 in its environment"
_LORA = "--enable-lora, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment"
_OTHER = "medvol speaks with vLLM 0.33"


class VLLMServerEngine(RolloutEngine):
    """A vLLM server on its own devices answers over HTTP (extra ``vllm-server``; vLLM itself is not needed here).

    In each step the weights are written to a folder that the server reads too; with ``lora_rank``, only the adapters
    are. The server then forgets the prompts that it read with the old ones. All processes ask the same server. Each
    start names its weights anew, so several fits may share ``folder``, and with adapters also a server.

    Args:
        url: Address of the server, such as ``http://127.0.0.1:8000``.
        folder: A folder that this machine and the server's have under the same path, such as ``/dev/shm/medvol``.
        model: Name of the model there; None takes the one that the server has.
        timeout_s: Longest wait for an answer of the server, up to a day.
    """

    def __init__(self, url: str, folder: str, model: str | None = None, timeout_s: float = 600.0) -> None:
        require_address("engine.url", url, "http://127.0.0.1:8000")
        require_between("(0, 86400]", "engine", timeout_s=timeout_s)
        self.url = url
        self.folder = folder
        self.model = model
        self.timeout_s = timeout_s
        self._connection: Connection | None = None
        self._form: ServedForm | None = None
        self._name = ""
        self._limit = 0
        self._stem = ""
        self._syncs = 0
        self._adapters: list[str] = []
        """Those that the server may have."""

    def require_ready(self) -> None:
        """Find what speaks to the server, and knock."""
        for package in ("httpx", "msgpack"):
            if find_spec(package) is None:
                raise MissingExtraError(package, "vllm-server")
        connection = Connection(self.url, self.timeout_s)
        try:
            self._find_model(connection)
        finally:
            connection.close()

    def start(self, policy: TrainablePolicy) -> Policy:
        """Find the server and its model, and see that it was started as it must be."""
        self.stop()
        form = served_form_of(self, policy)
        self._connection = Connection(self.url, self.timeout_s)
        self._name, self._limit = self._find_model(self._connection)
        self._require_settings(self._connection, form.adapter_rank)
        self._form = form
        self._stem = _agree(f"medvol-{uuid.uuid4().hex[:8]}")
        return EnginePolicy(self.sample, policy.template)

    def sync(self) -> None:
        """Write the weights, once for all processes, have the server read them, and forget what it read before."""
        form, connection = self._started()
        self._syncs += 1
        folder = Path(self.folder) / f"{self._stem}-{self._syncs}"
        if _is_first():
            with write_whole_folder(folder) as partial:
                (form.write_adapter if form.adapter_rank else form.write_base)(partial)
            if form.adapter_rank:
                self._load(connection, folder)
            else:
                loading = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
                connection.post("/collective_rpc", loading, _DEV)
            forgotten = connection.post("/reset_prefix_cache", {}, _DEV)
            if not (isinstance(forgotten, Mapping) and forgotten.get("success") is True):
                raise EngineError(
                    f"the vLLM server {self.url} did not forget the prompts that it read with the old weights; see "
                    "that nobody else uses it"
                )
            self._remove_places(but=folder)
        _wait_for_all()
        if form.adapter_rank:
            self._name = folder.name

    def stop(self) -> None:
        """Leave the server, and remove all weights that it was given, those of a sync that failed too."""
        if self._connection is not None:
            for adapter in list(self._adapters):
                try:
                    self._unload(self._connection, adapter)
                except EngineError as error:
                    log.warning("the adapter %s may stay on the server: %s", adapter, error)
            self._connection.close()
        if self._syncs and _is_first():
            self._remove_places()
        self._connection = self._form = None
        self._adapters = []
        self._syncs = 0

    def sample(self, prompts: Sequence[Prompt], n: int, sampling: Sampling) -> list[list[Completion]]:
        """Write ``n`` completions for each prompt, with the weights of the last ``sync``."""
        form, _ = self._started()
        packed: dict[int, tuple[list[str], list[str]]] = {}
        requests = []
        for place, prompt in enumerate(prompts):
            ids = form.spell(prompt)
            require_length(ids, self._limit, sampling, "--max-model-len of the server")
            if id(prompt.slices) not in packed:
                packed[id(prompt.slices)] = pack_slices(form.patches(prompt), form.kind)
            hashes, contents = packed[id(prompt.slices)]
            features = {
                "mm_hashes": {"image": hashes},
                "mm_placeholders": {"image": find_places(ids, form.image_id, len(hashes))},
                "kwargs_data": {"image": contents},
            }
            fields = {**sampling_fields(form, sampling, n, place), "output_kind": _FINAL_ONLY}
            requests.append({"token_ids": ids, "features": features, "sampling_params": fields})
        with ThreadPoolExecutor(min(_AT_ONCE, max(1, len(requests)))) as threads:
            return list(threads.map(partial(self._ask, n, sampling), requests))

    def _ask(self, n: int, sampling: Sampling, request: Mapping[str, Any]) -> list[Completion]:
        form, connection = self._started()
        content = {"request_id": f"medvol-{uuid.uuid4().hex}", "model": self._name, **request}
        answer = connection.post("/inference/v1/generate", content, _TOKENS)
        try:
            choices = sorted(answer["choices"], key=lambda choice: choice["index"])
            read = [
                (
                    [_require(int, token) for token in choice["token_ids"]],
                    [float(_require((int, float), row["logprob"])) for row in choice["logprobs"]["content"]],
                    choice["finish_reason"],
                )
                for choice in choices
            ]
        except (TypeError, KeyError, ValueError) as error:
            raise EngineError(
                f"the vLLM server {self.url} gave no completions with tokens and log-probabilities "
                f"({type(error).__name__}: {error}); {_OTHER}"
            ) from None
        if len(read) != n:
            raise EngineError(
                f"the vLLM server {self.url} gave {len(read)} completions of a prompt, and {n} were asked"
            )
        return [read_answer(form, ids, log_probs, reason, sampling) for ids, log_probs, reason in read]

    def _require_settings(self, connection: Connection, rank: int) -> None:
        """Refuse a server that would answer something else than the policy."""
        answer = connection.get("/server_info?config_format=json", _DEV)
        try:
            config = answer["vllm_config"]
            model, adapters = config["model_config"], config["lora_config"]
            room = adapters["max_lora_rank"] if adapters else 0
            wanted = {
                "--logprobs-mode processed_logprobs": model["logprobs_mode"] == "processed_logprobs",
                "--no-mm-device-do-normalize": model["multimodal_config"]["mm_device_do_normalize"] is False,
                f"--enable-lora --max-lora-rank {rank} or more": room >= rank,
            }
        except (TypeError, KeyError):
            raise EngineError(f"the vLLM server {self.url} does not tell its settings; {_OTHER}") from None
        missing = [option for option, given in wanted.items() if not given]
        if missing:
            raise EngineError(
                f"the vLLM server {self.url} answers otherwise than the policy; start it with {missing[0]}"
            )

    def _find_model(self, connection: Connection) -> tuple[str, int]:
        """Name of the model that is asked, and most tokens that it takes."""
        answer = connection.get("/v1/models")
        try:
            limits = {str(card["id"]): card.get("max_model_len") for card in answer["data"]}
        except (TypeError, KeyError, AttributeError):
            raise EngineError(f"{self.url} answers, but not as a vLLM server does; check engine.url") from None
        known = {name: limit for name, limit in limits.items() if type(limit) is int and limit > 0}
        name = self.model if self.model is not None else next(iter(known), "")
        if name not in known:
            raise EngineError(
                f"the vLLM server {self.url} has {', '.join(known) or 'no model'}, and engine.model is {name!r}; "
                "name one that it has"
            )
        return name, known[name]

    def _load(self, connection: Connection, folder: Path) -> None:
        """Have the server read an adapter under the name of its folder, and let go of the one before."""
        older = list(self._adapters)
        self._adapters.append(folder.name)  # a server that did not answer may have it
        loading = {"lora_name": folder.name, "lora_path": str(folder), "load_inplace": True}
        connection.post("/v1/load_lora_adapter", loading, _LORA)
        for adapter in older:
            self._unload(connection, adapter)

    def _unload(self, connection: Connection, adapter: str) -> None:
        connection.post("/v1/unload_lora_adapter", {"lora_name": adapter}, _LORA)
        self._adapters.remove(adapter)

    def _remove_places(self, but: Path | None = None) -> None:
        """Remove the weights of all syncs since the start, but one."""
        for folder in Path(self.folder).glob(f"{self._stem}-*"):
            if folder != but:
                shutil.rmtree(folder, ignore_errors=True)

    def _started(self) -> tuple[ServedForm, Connection]:
        if self._form is None or self._connection is None:
            raise EngineError("VLLMServerEngine was not started; a fit starts it before its first step")
        return self._form, self._connection


def _require(kind: type | tuple[type, ...], value: Any) -> Any:
    """A value of a type; true and false are no numbers."""
    if isinstance(value, bool) or not isinstance(value, kind):
        raise TypeError(f"{value!r} is no number")
    return value


def _agree(name: str) -> str:
    """The name that the first process chose, in all of them."""
    from torch import distributed

    names = [name]
    if _count_processes() > 1:
        distributed.broadcast_object_list(names, src=0)
    return names[0]


def _is_first() -> bool:
    """True in the one process that speaks for all."""
    from torch import distributed

    return _count_processes() == 1 or distributed.get_rank() == 0


def _wait_for_all() -> None:
    """Go on when all processes have come here."""
    from torch import distributed

    if _count_processes() > 1:
        distributed.barrier()


def _count_processes() -> int:
    from torch import distributed

    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
