"""The common ground: what a pair is, where it is stored, how the web is asked, how a run is shown."""

__version__ = "0.1.0"
