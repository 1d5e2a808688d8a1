"""Batches whose gradients are added up before one optimiser step."""

from __future__ import annotations

from lightning.pytorch import Trainer


def within_accumulation(trainer: Trainer) -> bool:
    """Whether the gradients of the present batch wait for further batches: no checkpoint holds them."""
    return not trainer.is_last_batch and (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches != 0


def count_accumulated(trainer: Trainer) -> int:
    """Batches whose gradients are added up so far, the present one included; an epoch may end with fewer than usual."""
    return int(trainer.fit_loop.batch_idx) % trainer.accumulate_grad_batches + 1
