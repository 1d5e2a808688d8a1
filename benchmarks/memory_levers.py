"""Peak memory of a GRPO step on a middle-sized model, with and without each setting that saves memory.

The language model has 12 layers of 1,024 channels and a vocabulary of 32,768, with random weights; a step reads two
volumes of 64 slices and draws 8 answers to a query about each. Slices are 64 px a side, so that a step takes
less than a minute of a core. What the same step needs at 256 px is planned, for a GPU: ``--plan`` plans all rows and
runs nothing. ``step_memory.py`` says how peaks are measured.

    python benchmarks/memory_levers.py [--device cuda] [--names ...] [--out benchmarks/results/memory_levers.json]

Rows that are in the file already are kept. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from step_memory import Setting, measure_apart, plan

PLAIN = Setting(
    "all weights trained",
    hidden=1024,
    layers=12,
    vision_hidden=256,
    slices=64,
    side_px=64,
    batch=2,
    answer_tokens=16,
    vocabulary=32_768,
)
FROZEN = {"freeze_vision": True}
LORA = {"lora_rank": 16}
CHECKPOINTED = {"gradient_checkpointing": True}

SETTINGS = (
    PLAIN,
    replace(PLAIN, name="gradient checkpointing", policy=CHECKPOINTED),
    replace(PLAIN, name="low-rank adapters", policy=LORA),
    replace(
        PLAIN,
        name="adapters, checkpointing, one volume a pass",
        policy={**LORA, **CHECKPOINTED},
        volumes_per_pass=1,
    ),
    replace(PLAIN, name="one volume a pass", volumes_per_pass=1),
    replace(PLAIN, name="frozen vision tower", policy=FROZEN),
    replace(PLAIN, name="scores of all rows at once", score_rows=10**9),
    replace(PLAIN, name="no reference (beta 0)", beta=0.0),
    replace(PLAIN, name="adapters on layers of 4 bits", policy={**LORA, "quantised": True}),
)

PLANNED_ONLY = (
    replace(PLAIN, name="moments on the host", moments="host"),
    replace(PLAIN, name="moments of 8 bits", moments="8bit"),
)
"""On a CPU, device and host are one, and moments are made by hand before the step that is measured."""


def main() -> None:
    """Measure what is not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--names", nargs="*", choices=[setting.name for setting in SETTINGS])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "memory_levers.json")
    parser.add_argument("--plan", action="store_true", help="plan the steps at 256 px, and measure none")
    options = parser.parse_args()
    rows = json.loads(options.out.read_text())["rows"] if options.out.is_file() else []
    if options.plan:
        planned = {setting.name: plan(replace(setting, side_px=256), "cuda") for setting in SETTINGS + PLANNED_ONLY}
        print(json.dumps(planned))
        return
    for setting in SETTINGS:
        wanted = not options.names or setting.name in options.names
        if wanted and setting.name not in [row["name"] for row in rows]:
            row = measure_apart(setting, options.device)
            rows.append(row)
            options.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
            print(
                f"{setting.name:<44} {row['measured_bytes'] / 2**30:6.2f} GiB, {row['cpu_seconds']:.0f} s", flush=True
            )
    print(json.dumps({row["name"]: row["measured_bytes"] for row in rows}))


if __name__ == "__main__":
    main()
