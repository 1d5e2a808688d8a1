"""Writes down the interface of an installed vLLM as far as medvol uses it: names of parameters, fields and paths.

``python -m tests.engines.record_vllm`` prints it; ``vllm_interface.json`` holds what 0.33.0 has. The fakes of the tests
are held to that file, and the file to the package where it is installed.
"""

import dataclasses
import inspect
import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RECORD = Path(__file__).with_name("vllm_interface.json")


def read_record() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RECORD.read_text())
    return content


def record() -> dict[str, Any]:
    from vllm import LLM, SamplingParams
    from vllm.config import LoRAConfig, ModelConfig, MultiModalConfig, VllmConfig
    from vllm.engine.arg_utils import EngineArgs
    from vllm.entrypoints.scale_out.token_in_token_out import protocol
    from vllm.entrypoints.serve.engine.protocol import ModelCard
    from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest
    from vllm.lora.request import LoRARequest
    from vllm.model_executor.models.qwen3_vl import Qwen3VLForConditionalGeneration
    from vllm.multimodal.inputs import MultiModalBatchedField, MultiModalFlatField
    from vllm.outputs import CompletionOutput
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    methods = (LLM.generate, LLM.collective_rpc, LLM.reset_prefix_cache, LLM.sleep, LLM.wake_up)
    bodies = (protocol.GenerateRequest, protocol.MultiModalFeatures, protocol.PlaceholderRangeInfo)
    answers = (protocol.GenerateTokensChoice, protocol.GenerateLogProbs, protocol.GenerateLogProbsContent, ModelCard)
    models = (*bodies, *answers, LoadLoRAAdapterRequest, UnloadLoRAAdapterRequest)
    named = set(inspect.signature(LLM).parameters) - {"kwargs"}
    return {
        "LLM": sorted(named | {field.name for field in dataclasses.fields(EngineArgs)}),
        **{f"LLM.{method.__name__}": _parameters(method) for method in methods},
        "reload_weights": _parameters(GPUModelRunner.reload_weights),
        "SamplingParams": sorted(inspect.signature(SamplingParams).parameters),
        "LoRARequest": list(inspect.signature(LoRARequest).parameters),
        "CompletionOutput": sorted(field.name for field in dataclasses.fields(CompletionOutput)),
        **{
            config.__name__: sorted(field.name for field in dataclasses.fields(config))
            for config in (VllmConfig, ModelConfig, MultiModalConfig, LoRAConfig)
        },
        "FINAL_ONLY": RequestOutputKind.FINAL_ONLY.value,
        "paths": sorted(_paths()),
        **{model.__name__: sorted(model.model_fields) for model in models},
        "fields": {
            "flat": sorted(field.name for field in dataclasses.fields(MultiModalFlatField)),
            "batched": sorted(field.name for field in dataclasses.fields(MultiModalBatchedField)),
        },
        "prefixes": dict(Qwen3VLForConditionalGeneration.hf_to_vllm_mapper.orig_to_new_prefix),
    }


def _parameters(method: Any) -> list[str]:
    return [name for name in inspect.signature(method).parameters if name != "self"]


def _paths() -> set[str]:
    """Paths that the server's routers register, read from their source: they start only with a model."""
    import vllm

    folder = Path(vllm.__file__).parent / "entrypoints"
    wanted = ("scale_out/token_in_token_out/api_router.py", "serve/lora/api_router.py", "serve/dev/*/api_router.py")
    found = set()
    for pattern in wanted:
        for file in folder.glob(pattern):
            found |= set(re.findall(r'@router\.(?:post|get)\(\s*"([^"]+)"', file.read_text()))
    return found


if __name__ == "__main__":
    try:
        known = version("vllm")
    except PackageNotFoundError:
        known = "?"
    print(json.dumps({"version": known, **record()}, indent=1))
