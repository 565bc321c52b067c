"""Runtimes: one file is one runner, its name is its registry name."""
