"""Prompts, the answer grammar, boxes, anchors, queries."""
