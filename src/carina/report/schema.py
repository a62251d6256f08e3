"""The JSON Schema of ``report.json``: ``python -m carina.report.schema > docs/reference/report.schema.json``.

Must not know anything but the report.
"""

import json
import sys

from carina.findings import Report


def schema_text() -> str:
    """The schema as indented JSON that ends with a newline."""
    return json.dumps(Report.json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
