"""The API as an OpenAPI document, and that document as a page. Must not know how anything is done."""

from typing import Any

import jinja2
import msgspec

import carina
from carina.findings import RESEARCH_USE, Report
from carina.serve.folder import RESULTS
from carina.serve.jobs import STATES
from carina.serve.problems import MEDIA_TYPE, TITLES
from carina.serve.reviews import Review
from carina.serve.settings import Settings

Node = dict[str, Any]

_JSON = "application/json"
_BINARY: Node = {"schema": {}}


def document(settings: Settings) -> Node:
    """The OpenAPI 3.1 document of a server with these settings."""
    definitions = _definitions()
    security: list[Node] = [{"token": []}] if settings.token is not None else []
    components: Node = {
        "schemas": {**definitions, "Problem": _PROBLEM, "Job": _JOB, "Answers": _ANSWERS, "Server": _SERVER}
    }
    if security:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Carina",
            "version": carina.__version__,
            "description": f"Lung nodules in chest CT. {RESEARCH_USE}",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": security,
        "paths": _studies(settings) | _jobs() | _results() | _classify(settings) | _probes(),
        "components": components,
    }


def docs_page(openapi: Node) -> str:
    """The document as one HTML page without scripts."""
    return _PAGE.render(api=openapi, schemas=openapi["components"]["schemas"])


def _ref(name: str) -> Node:
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _definitions() -> Node:
    """The report's and the review's schemas, under the names that references use."""
    _, found = msgspec.json.schema_components([Report, Review], ref_template="#/components/schemas/{name}")
    return found


def _operation(summary: str, good: Node, problems: str, *, parameters: list[Node] | None = None, **more: Any) -> Node:
    responses: Node = dict(good)
    for kind in problems.split():
        status, title = TITLES[kind]
        content = {MEDIA_TYPE: _ref("Problem")}
        responses.setdefault(str(status), {"description": title, "content": content})
    return {"summary": summary, "responses": responses, "parameters": parameters or [], **more}


def _good(description: str, status: int = 200, **content: Node) -> Node:
    kinds = {name.replace("__", "/").replace("_", "-"): value for name, value in content.items()}
    return {str(status): {"description": description, **({"content": kinds} if kinds else {})}}


def _query(name: str, description: str, **schema: Any) -> Node:
    return {"name": name, "in": "query", "description": description, "schema": schema, "required": False}


_ALWAYS = "bad-request unauthorized forbidden internal busy"
_ID: Node = {
    "name": "job_id",
    "in": "path",
    "required": True,
    "description": "The job's id.",
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
}
_UID = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)+$", "maxLength": 64}


def _studies(settings: Settings) -> Node:
    file = {"type": "string", "contentMediaType": "application/octet-stream"}
    form = {"type": "object", "properties": {"file": {"type": "array", "items": file}}, "required": ["file"]}
    operation = _operation(
        "Upload a study: a zip of DICOM, an image (.mha, .nii, .nii.gz, .nrrd), or a form with files",
        {
            "202": {
                "description": "The job that will analyse it",
                "headers": {"Location": {"description": "The job", "schema": {"type": "string"}}},
                "content": {_JSON: _ref("Job")},
            }
        },
        f"{_ALWAYS} timeout too-large unsupported invalid no-space",
        parameters=[_query("series_uid", "Which DICOM series to take; default: the best one.", **_UID)],
        requestBody={
            "required": True,
            "description": f"At most {settings.limits.upload_bytes} bytes; kinds are told by their content.",
            "content": {
                "application/octet-stream": _BINARY,
                "application/zip": _BINARY,
                "multipart/form-data": {"schema": form},
            },
        },
        operationId="post_study",
    )
    return {"/v1/studies": {"post": operation}}


def _jobs() -> Node:
    one = {_JSON: _ref("Job")}
    jobs = {
        "type": "object",
        "required": ["jobs", "before"],
        "properties": {
            "jobs": {"type": "array", "items": {"$ref": "#/components/schemas/Job"}},
            "before": {"type": ["integer", "null"], "description": "For the next page; null at the end."},
        },
    }
    listing = _operation(
        "List jobs, the latest first",
        {"200": {"description": "Jobs", "content": {_JSON: {"schema": jobs}}}},
        f"{_ALWAYS} invalid",
        parameters=[
            _query("state", "Only jobs in this state.", type="string", enum=list(STATES)),
            _query("limit", "At most so many.", type="integer", minimum=1, maximum=500, default=100),
            _query("before", "Only jobs with a smaller number.", type="integer", minimum=0, maximum=2**53),
        ],
        operationId="list_jobs",
    )
    problems = f"{_ALWAYS} not-found"
    get = _operation("One job", {"200": {"description": "The job", "content": one}}, problems, operationId="get_job")
    delete = _operation(
        "Stop a job if need be, and delete it with its files", _good("Gone", 204), problems, operationId="delete_job"
    )
    cancel = _operation(
        "Stop a job; an ended one stays as it is",
        {"202": {"description": "The job", "content": one}},
        problems,
        operationId="cancel_job",
    )
    events = _operation(
        "Server-sent events: `job` with the job as data whenever it changes, until it has ended",
        {"200": {"description": "Events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}},
        problems,
        operationId="job_events",
    )
    here = "/v1/jobs/{job_id}"
    return {
        "/v1/jobs": {"get": listing},
        here: {"parameters": [_ID], "get": get, "delete": delete},
        f"{here}/cancel": {"parameters": [_ID], "post": cancel},
        f"{here}/events": {"parameters": [_ID], "get": events},
    }


def _results() -> Node:
    problems = f"{_ALWAYS} not-found conflict"
    files = {
        "report": ("The report, as `carina detect` writes it", _JSON, _ref("Report")),
        RESULTS["report_html"]: ("The report as a page", "text/html", {"schema": {"type": "string"}}),
        RESULTS["findings_csv"]: ("The findings as a table", "text/csv", {"schema": {"type": "string"}}),
        RESULTS["mask"]: ("The findings' voxels: each has its finding's id", "application/gzip", _BINARY),
        RESULTS["volume"]: ("The CT in HU", "application/gzip", _BINARY),
        "export.zip": ("Report, table, mask and review", "application/zip", _BINARY),
    }
    paths: Node = {}
    for name, (summary, kind, schema) in files.items():
        good = {"200": {"description": summary, "content": {kind: schema}}}
        get = _operation(summary, good, problems, operationId=f"get_{name.replace('.', '_')}")
        paths[f"/v1/jobs/{{job_id}}/{name}"] = {"parameters": [_ID], "get": get}
    review = {"200": {"description": "The review", "content": {_JSON: _ref("Review")}}}
    put = _operation(
        "Keep what a person says about the findings, in place of what was said before",
        review,
        f"{problems} timeout too-large invalid",
        requestBody={"required": True, "content": {_JSON: _ref("Review")}},
        operationId="put_review",
    )
    get = _operation("What a person said about the findings", review, problems, operationId="get_review")
    paths["/v1/jobs/{job_id}/review"] = {"parameters": [_ID], "get": get, "put": put}
    return paths


def _classify(settings: Settings) -> Node:
    numbers = "one number per crop, separated by commas; an empty place where it is unknown"
    post = _operation(
        "Probabilities for crops of HU on the network's grid (`GET` says which)",
        {"200": {"description": "One answer per crop", "content": {_JSON: _ref("Answers")}}},
        f"{_ALWAYS} timeout too-large invalid deadline",
        parameters=[
            _query("dtype", "Type of raw voxels, little-endian.", type="string", enum=["int16", "float32"]),
            _query("shape", "Shape of raw voxels: z,y,x or n,z,y,x.", type="string"),
            _query("diameter_mm", f"Diameters, for p_malignant: {numbers}.", type="string"),
            _query("segmentation_score", f"Scores of the first stage: {numbers}.", type="string"),
        ],
        requestBody={
            "required": True,
            "description": f"An .npy file, or raw voxels in C order; at most {settings.limits.crops} crops.",
            "content": {"application/octet-stream": _BINARY},
        },
        operationId="classify",
    )
    get = _operation(
        "What crops must look like, and which model answers",
        {"200": {"description": "The model", "content": {_JSON: {"schema": {"type": "object"}}}}},
        _ALWAYS,
        operationId="get_classifier",
    )
    return {"/v1/classify": {"post": post, "get": get}}


def _probes() -> Node:
    state = {_JSON: {"schema": {"type": "object"}}}
    health = _operation(
        "Whether the process answers",
        {"200": {"description": "It does", "content": state}},
        "bad-request forbidden internal",
        security=[],
        operationId="healthz",
    )
    ready = _operation(
        "Whether the models are warm",
        {"200": {"description": "They are", "content": state}},
        "bad-request forbidden internal not-ready",
        security=[],
        operationId="readyz",
    )
    server = _operation(
        "What this server takes",
        {"200": {"description": "Its version and limits", "content": {_JSON: _ref("Server")}}},
        _ALWAYS,
        operationId="get_server",
    )
    metrics = _operation(
        "Figures for Prometheus",
        {"200": {"description": "Metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}},
        _ALWAYS,
        operationId="metrics",
    )
    return {
        "/healthz": {"get": health},
        "/readyz": {"get": ready},
        "/v1/server": {"get": server},
        "/metrics": {"get": metrics},
    }


_TEXT: Node = {"type": "string"}
_NUMBER: Node = {"type": ["number", "null"]}
_TIME: Node = {"type": ["string", "null"], "format": "date-time"}

_PROBLEM: Node = {
    "type": "object",
    "description": "RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "properties": {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT},
}

_JOB: Node = {
    "type": "object",
    "required": ["id", "number", "state", "progress", "created", "attempts", "links"],
    "properties": {
        "id": _TEXT,
        "number": {"type": "integer", "description": "Counts up in order of arrival."},
        "state": {"type": "string", "enum": list(STATES)},
        "stage": {"type": ["string", "null"], "description": "read, lungs, segment, group, classify, diagnose, write."},
        "progress": {"type": "number", "minimum": 0, "maximum": 1},
        "created": _TIME,
        "started": _TIME,
        "finished": _TIME,
        "attempts": {"type": "integer"},
        "cancelling": {"type": "boolean"},
        "series_uid": {"type": ["string", "null"]},
        "error": {"type": ["object", "null"], "description": "Type, title and detail of what went wrong."},
        "findings": {"type": ["integer", "null"]},
        "p_malignant": _NUMBER,
        "bytes": {"type": "integer"},
        "links": {"type": "object", "additionalProperties": _TEXT},
    },
}

_SERVER: Node = {
    "type": "object",
    "required": ["version", "notice", "uploads", "upload_bytes", "comment_chars"],
    "properties": {
        "version": _TEXT,
        "notice": _TEXT,
        "uploads": {"type": "boolean", "description": "False where one finished report is shown (`carina view`)."},
        "upload_bytes": {"type": "integer", "description": "Largest study."},
        "comment_chars": {"type": "integer", "description": "Longest comment of a review."},
    },
}

_ANSWERS: Node = {
    "type": "object",
    "required": ["answers", "model", "notice"],
    "properties": {
        "answers": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["p_nodule", "p_nodule_basis", "p_malignant", "classification_score"],
                "properties": {
                    "p_nodule": {"type": "number", "minimum": 0, "maximum": 1},
                    "p_nodule_basis": {"type": "string", "enum": ["second stage alone", "both stages"]},
                    "p_malignant": {**_NUMBER, "description": "Null unless a diameter was given."},
                    "classification_score": {"type": "number", "minimum": 0, "maximum": 1},
                },
            },
        },
        "model": {"type": "object"},
        "notice": _TEXT,
    },
}

_PAGE = jinja2.Environment(loader=jinja2.PackageLoader("carina.serve", "."), autoescape=True).get_template(
    "docs.html.j2"
)
