"""What stands between a prompt and a served model: messages, requests, bounds, and answers that are read with care."""
