"""What a training step needs, worked out before it is run: tokens, memory and passes, without weights."""
