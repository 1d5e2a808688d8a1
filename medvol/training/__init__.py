"""How a policy learns: SFT, GRPO, data, checkpoints."""
