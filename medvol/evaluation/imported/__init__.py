"""Masks that other systems wrote: found in their layouts, matched to the questions of a data set, and scored."""
