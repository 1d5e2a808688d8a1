"""What a person at a terminal sees and does: progress, tables, stops."""
