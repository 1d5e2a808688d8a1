"""What MedSAM2 and SAM 2 share."""
