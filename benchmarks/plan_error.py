"""How far ``medvol plan`` is from the peak that a training step really has, on tiny and middle-sized models.

Each setting runs in a fresh process (``step_memory.py`` says how the peak is measured). One line a setting; the last
line is one JSON object with ``largest_error``, the largest absolute error, and every row.

    python benchmarks/plan_error.py [--device cuda] [--names tiny-sft ...] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from step_memory import Setting, measure_apart

LORA = {"lora_rank": 16}
CHECKPOINTED = {"gradient_checkpointing": True}
MIDDLE = {"hidden": 512, "layers": 8, "vision_hidden": 256, "slices": 32, "answer_tokens": 16, "vocabulary": 16_384}

SETTINGS = (
    Setting("tiny-sft", "SFT", batch=2, queries=3),
    Setting("tiny-sft-checkpointed", "SFT", batch=2, queries=3, policy=CHECKPOINTED),
    Setting("tiny-grpo"),
    Setting("tiny-grpo-two-passes", batch=2, queries=2, volumes_per_pass=1),
    Setting("tiny-grpo-frozen-vision", batch=2, queries=2, policy={"freeze_vision": True}),
    Setting("tiny-grpo-lora-bf16", dtype="bfloat16", policy={**LORA, **CHECKPOINTED}),
    Setting("middle-sft", "SFT", batch=1, queries=2, **MIDDLE),
    Setting("middle-grpo", **MIDDLE),
    Setting("middle-grpo-lora-checkpointed", policy={**LORA, **CHECKPOINTED}, **MIDDLE),
    Setting("middle-grpo-bf16", dtype="bfloat16", policy=CHECKPOINTED, **MIDDLE),
)


def main() -> None:
    """Measure the settings and print the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--names", nargs="*", choices=[setting.name for setting in SETTINGS])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for setting in SETTINGS:
        if options.names and setting.name not in options.names:
            continue
        row = measure_apart(setting, options.device)
        rows.append(row)
        sizes = f"{row['measured_bytes'] / 2**20:9.1f} MiB measured, {row['planned_bytes'] / 2**20:9.1f} MiB planned"
        print(f"{setting.name:<32} {sizes}, error {row['error']:+.1%}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(_summary(rows), indent=1) + "\n")
    print(json.dumps(_summary(rows)))


def _summary(rows: list[dict]) -> dict:
    return {"largest_error": max(abs(row["error"]) for row in rows), "device": rows[0]["device"], "rows": rows}


if __name__ == "__main__":
    main()
