"""Where components are called, and what they do is checked."""
