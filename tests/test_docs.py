"""What the README and the pages show works as written; the guide's code is run by the build of the site."""

import json
import re
import shlex
from pathlib import Path

import pytest

from carina.cli import parse
from carina.io import write_dicom
from serve_samples import running, small_chest, write_samples, write_weights

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, *languages: str) -> list[str]:
    """Blocks of code in these languages that the build of the site does not run itself."""
    fence = rf"^```(?:{'|'.join(languages)})\n(.*?)^```"
    return re.findall(fence, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def command_lines() -> list[tuple[str, str]]:
    """Every ``carina ...`` line of a shell block, with the page that shows it."""
    return [
        (str(page.relative_to(ROOT)), line.strip())
        for page in PAGES
        for block in blocks(page, "bash", "sh")
        for line in block.replace("\\\n", " ").splitlines()
        if re.match(r"(\.venv/bin/)?carina ", line.strip())
    ]


@pytest.mark.parametrize(("page", "line"), command_lines())
def test_the_program_understands_every_command_of_the_docs(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    plain = next((i for i, word in enumerate(words) if word.startswith((">", "2>", "|", "&"))), len(words))
    parse(words[1:plain])


def test_the_pages_show_commands() -> None:
    assert len(command_lines()) > 75


def test_every_python_block_of_the_pages_is_run_by_a_test() -> None:
    known = {"README.md": 1, "docs/how-to/dicom-output.md": 1, "docs/how-to/serve.md": 2}
    assert {str(p.relative_to(ROOT)): n for p in PAGES if (n := len(blocks(p, "python")))} == known


def test_the_snippet_of_the_readme_prints_every_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dicom(small_chest(), tmp_path / "dicom")
    (block,) = blocks(ROOT / "README.md", "python")
    names: dict = {}
    exec(block.replace("path/to/dicom", str(tmp_path / "dicom")), names)
    assert len(names["report"].findings) > 0
    assert capsys.readouterr().out.count("\n") == len(names["report"].findings)


def test_the_snippets_about_serving_work(tmp_path: Path) -> None:
    client, application = blocks(ROOT / "docs" / "how-to" / "serve.md", "python")
    names: dict = {}
    exec(client, names)
    with running(tmp_path / "state", write_weights(tmp_path / "weights")) as server:
        report = names["analyse"](write_samples(tmp_path / "samples") / "chest.zip", server.url)
    assert report["findings"], json.dumps(report)
    exec(application, names)
    assert names["make_app"]().test_client().get("/healthz").status_code == 200
