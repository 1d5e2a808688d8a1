"""What the two vLLM engines share: what is asked, how answers are read, how slices travel."""
