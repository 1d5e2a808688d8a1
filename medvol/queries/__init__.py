"""How questions are made: phrasings, relations between structures, instances."""
