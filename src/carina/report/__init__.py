"""A report in files: JSON, CSV, one self-contained HTML page with pictures, and the mask of the findings.

``write_report`` writes them side by side, all or none. Must not know how findings are made.
"""

from carina.report.files import FORMATS, write_report
from carina.report.html import render_html

__all__ = ["FORMATS", "render_html", "write_report"]
