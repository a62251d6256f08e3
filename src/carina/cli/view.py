"""``carina view``: a finished report in the browser."""

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import tyro

from carina.errors import UsageError


@dataclass
class View:
    """Show a report of carina detect in the browser, with its CT; the review is kept beside the report."""

    report: Annotated[Path, tyro.conf.Positional]
    """Folder of a case that carina detect wrote."""
    ct: Path | None = None
    """Where the CT is, if it was moved since."""
    port: int = 0
    """Port of the loopback address to listen on; default: a free one."""
    browser: bool = True
    """Open the browser; otherwise only the address is printed."""

    def run(self) -> None:
        """Show it until interrupted."""
        try:
            from carina.serve.routes_pages import VIEWER
            from carina.serve.run import listen, serve
            from carina.serve.shown import find_report, show
        except ModuleNotFoundError as error:
            raise UsageError(f"the viewer needs {error.name}; install carina-ct[serve]") from error
        from carina.serve.folder import StateFolder
        from carina.serve.settings import Settings

        if "index.html" not in VIEWER:
            raise UsageError("the viewer is not built; run 'make viewer' in a checkout (it needs Node.js), then again")
        run = find_report(self.report)
        with TemporaryDirectory(prefix="carina-view-") as scratch:
            settings = Settings(Path(scratch), port=self.port, report=run)
            folder = StateFolder(settings.folder)
            folder.make()
            show(run, self.ct, folder, settings.limits)
            with listen(settings) as listener:
                url = f"http://{settings.host}:{listener.getsockname()[1]}/"
                print(f"{run} is at {url} until you press Ctrl-C.", flush=True)
                if self.browser:
                    webbrowser.open(url)
                serve(settings, listener)
