"""What is Qwen's own: how its networks lay out a prompt, see slices and are read from a folder."""
