"""What every vision-language model shares: its policy, packing, decoding, adapters and model folder."""
