"""Detectors in PyTorch: one file is one model, its name is its registry name."""
