"""Training on detection data."""
