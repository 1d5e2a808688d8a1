"""The local web page: see an answer, move a box, get the mask again, keep the correction."""
