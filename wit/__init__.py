"""The common ground: what a pair is, where it is stored, how the web is asked."""

__version__ = "0.1.0"
