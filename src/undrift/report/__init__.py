"""The report: one self-contained HTML page of maps, scores and provenance."""

from undrift.report.page import Section, write_page

__all__ = ["Section", "write_page"]
