"""Serve the OHIF viewer beside an Orthanc, for a demonstration on one machine.

    python ohif.py FOLDER_OF_OHIF [--orthanc http://127.0.0.1:8042] [--port 3000]

FOLDER_OF_OHIF is the ``dist`` folder of npm's ``@ohif/app``. The viewer and Orthanc's DICOMweb appear under one
address, so that the browser needs no permission to speak to another one. Standard library only. Reading only: nothing
but GET is passed on. Not for hospitals: no passwords, no TLS.
"""

import argparse
import http.client
import mimetypes
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

CONFIG = """window.config = {
  routerBasename: '/', extensions: [], modes: [], showStudyList: true, maxNumberOfWebWorkers: 2,
  showWarningMessageForCrossOrigin: false, showCPUFallbackMessage: false, showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: false, investigationalUseDialog: { option: 'never' },
  maxNumRequests: { interaction: 10, thumbnail: 5, prefetch: 5 }, defaultDataSourceName: 'orthanc',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'orthanc',
    configuration: {
      friendlyName: 'Orthanc', name: 'orthanc', qidoRoot: '/dicom-web', wadoRoot: '/dicom-web',
      wadoUriRoot: '/wado', qidoSupportsIncludeField: false, imageRendering: 'wadors', thumbnailRendering: 'wadors',
      enableStudyLazyLoad: true, supportsFuzzyMatching: false, supportsWildcard: true,
      omitQuotationForMultipartRequest: true,
    },
  }],
};
"""


def main() -> None:
    """Serve until Ctrl+C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--orthanc", default="http://127.0.0.1:8042")
    parser.add_argument("--port", type=int, default=3000)
    arguments = parser.parse_args()
    root = arguments.folder.resolve()
    if not (root / "index.html").is_file():
        sys.exit(f"{root}: no index.html; give the folder `dist` of @ohif/app")
    orthanc = urlsplit(arguments.orthanc)

    class Handler(BaseHTTPRequestHandler):
        timeout = 60

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if path.startswith(("/dicom-web/", "/wado")):
                self._pass_on()
            elif path == "/app-config.js":
                self._answer(CONFIG.encode(), "text/javascript")
            else:
                file = (root / path.lstrip("/")).resolve()
                if not (file.is_relative_to(root) and file.is_file()):
                    file = root / "index.html"  # the viewer's own paths
                self._answer(file.read_bytes(), mimetypes.guess_type(file.name)[0] or "application/octet-stream")

        def _pass_on(self) -> None:
            connection = http.client.HTTPConnection(orthanc.hostname or "", orthanc.port or 80, timeout=60)
            try:
                # Orthanc's answers name it by the address that it was asked under.
                host = {"Accept": self.headers.get("Accept", "*/*"), "Host": self.headers.get("Host", "")}
                connection.request("GET", self.path, headers=host)
                answer = connection.getresponse()
                self._answer(answer.read(), answer.getheader("Content-Type") or "", answer.status)
            except OSError as error:
                self._answer(str(error).encode(), "text/plain", 502)
            finally:
                connection.close()

        def _answer(self, body: bytes, kind: str, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            # What lets the viewer share memory between its workers.
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler) as server:
        sys.stdout.write(f"OHIF at http://127.0.0.1:{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
