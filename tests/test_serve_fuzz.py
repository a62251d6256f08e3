"""The API against its own OpenAPI document: whatever schemathesis makes up is answered as the document says."""

from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from carina.serve.openapi import document
from carina.serve.settings import Settings
from serve_samples import running, write_weights

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

_DOCUMENT = schemathesis.openapi.from_dict(document(Settings(Path())))
OPERATIONS = {found.ok().label: found.ok() for found in _DOCUMENT.get_all_operations()}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    with running(folder / "state", write_weights(folder / "weights"), "--limits.idle-s", "2") as server:
        yield server
        server.wait_ready()
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_as_documented(server, label):
    @given(case=OPERATIONS[label].as_strategy())
    @settings(max_examples=15, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def ask(case):
        case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=60)

    ask()
