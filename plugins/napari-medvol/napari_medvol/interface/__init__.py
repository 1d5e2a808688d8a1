"""The interface that `medvol view` serves, from a client's side: Python's standard library and numpy, no torch."""
