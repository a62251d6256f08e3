"""A report in files: JSON, CSV, one self-contained HTML page with pictures, the mask of the findings, and DICOM.

``write_report`` writes them side by side, all or none. Must not know how findings are made.
"""

from carina.report.files import DICOM_FORMATS, FORMATS, check_formats, write_report
from carina.report.html import render_html

__all__ = ["DICOM_FORMATS", "FORMATS", "check_formats", "render_html", "write_report"]
