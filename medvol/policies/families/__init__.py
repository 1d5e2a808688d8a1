"""Families of vision-language models: one adapter a file, found by the ``model_type`` of a folder's ``config.json``.

An adapter is a ``VLMNetwork`` that says what is its family's own. The entry-point group ``medvol.families`` names it.
"""
