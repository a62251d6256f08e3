"""The package is light, and its command line answers at once."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import carina
from carina.cli import parse
from waiting import heed_ctrl_c, until


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_importing_carina_brings_no_torch() -> None:
    code = "import sys, carina, carina.findings, carina.io, carina.report; sys.exit('torch' in sys.modules)"
    assert run("-c", code).returncode == 0


def test_help_brings_no_torch_and_names_every_command() -> None:
    code = (
        "import sys, contextlib\nfrom carina.cli import COMMANDS, main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "assert 'torch' not in sys.modules and 'scipy' not in sys.modules\nprint(*COMMANDS)"
    )
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    *_, names = result.stdout.splitlines()
    assert all(f" {name} " in result.stdout for name in names.split())
    assert "carina --version" in result.stdout


def test_ctrl_c_ends_a_command_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "carina", "train", "thermometer", "--epochs", "100000000", "-o", str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed_ctrl_c) as process:
        try:
            until((tmp_path / "log.jsonl").exists)
            process.send_signal(signal.SIGINT)
            said, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, said, errors) == (130, "", "carina: stopped\n")


def test_every_public_name_can_be_loaded() -> None:
    assert all(getattr(carina, name) for name in carina.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nodule'"):
        _ = carina.nodule


def test_version() -> None:
    result = run("-m", "carina", "--version")
    assert result.stdout == f"carina {carina.__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["detect"], ["detect", "-i"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert run("-m", "carina", *arguments).returncode == 2


@pytest.mark.parametrize("words", ["phantom -o x", "evaluate froc x --annotations x", "runs compare x"])
def test_a_seed_below_0_is_wrong_usage(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([*words.split(), "--seed", "-1"])
    assert ended.value.code == 2
    assert "-1 is below 0" in capsys.readouterr().err
