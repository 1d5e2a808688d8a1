"""Files of weights, judged before any library opens them."""
