"""The API as an OpenAPI document, and that document as a page. Must not know how anything is done."""

from typing import Any

from carina.serve.settings import Settings


def document(settings: Settings) -> dict[str, Any]:
    return {"openapi": "3.1.0", "info": {"title": "Carina", "version": "0"}, "paths": {}}


def docs_page(_: dict[str, Any]) -> str:
    return ""
