"""How an answer is asked for, written and read: prompts, boxes, anchors, the grammar."""
