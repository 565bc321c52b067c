"""Toolchains: one file is one exporter, its name is its registry name."""
