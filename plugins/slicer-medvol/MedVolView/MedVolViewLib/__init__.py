"""What the module MedVolView works with; only `scene` needs Slicer."""
