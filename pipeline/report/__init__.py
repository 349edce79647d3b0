"""A run as one self-contained web page: `render(ReportData(...))`."""

from pipeline.report.data import (
    Breakdown,
    Card,
    Curve,
    Failure,
    Fate,
    Gallery,
    Histogram,
    HostRow,
    QueryRow,
    ReportData,
    StageRow,
    make_curve,
    thumbnail,
)
from pipeline.report.page import render

__all__ = [
    "Breakdown",
    "Card",
    "Curve",
    "Failure",
    "Fate",
    "Gallery",
    "Histogram",
    "HostRow",
    "QueryRow",
    "ReportData",
    "StageRow",
    "make_curve",
    "render",
    "thumbnail",
]
