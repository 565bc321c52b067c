"""The framework-free core of detbench: data sets, decoding, metrics, timing, results, reports."""

__version__ = "0.1.0"
