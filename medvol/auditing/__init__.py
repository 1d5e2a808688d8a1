"""What rewards pay for: answers altered on purpose, scored, and ranked."""
