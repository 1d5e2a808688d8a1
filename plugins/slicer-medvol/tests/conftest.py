"""Finds the module's own library, as Slicer does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "MedVolView"))
