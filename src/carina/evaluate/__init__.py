"""How good detections, probabilities and masks are, from files alone. Must not know networks or training."""
