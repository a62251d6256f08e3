"""The API against its own OpenAPI document: whatever schemathesis makes up is answered as the document says."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serve_samples import running, write_weights

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    with running(folder / "state", write_weights(folder / "weights"), "--limits.idle-s", "2") as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        server.wait_ready()
        assert "failed\nTraceback" not in server.log.read_text()


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(max_examples=15, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_every_answer_is_as_documented(case):
    case.call_and_validate(checks=CHECKS, timeout=60)
