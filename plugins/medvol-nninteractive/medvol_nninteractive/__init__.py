"""nnInteractive as a propagator of medvol."""
