"""The parts of LiteMedSAM."""
