"""Fixtures that all tests share; shapes and types of the package are checked at run time while tests run."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

install_import_hook("carina", "beartype.beartype")

DATA = Path(os.environ.get("CARINA_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real scans; tests that ask for it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no real scans at {DATA}; set CARINA_TEST_DATA")
    return DATA


@pytest.fixture(scope="session")
def lidc_0001(data_dir: Path) -> Path:
    """DICOM folder of LIDC-IDRI-0001 (133 slices, one nodule)."""
    return data_dir / "ct" / "lidc-idri-0001"
