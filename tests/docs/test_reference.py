"""Reference pages have a row for each endpoint, field, header, status, setting and command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import click
import pytest

from service.api.http_constants import SECURITY_HEADERS
from service.api.middleware.gateway import EXPOSED
from service.cli.main import main as service
from service.errors import InvalidRequest, RequestError, Unfit
from service.settings import OF_THE_CLIENT, PREFIX, Settings
from tests.helpers.documents import DOCS, first_cells, section
from tests.helpers.server import Server
from training.cli import main as training

HTTP, SETTINGS, CLI = (DOCS / name for name in ("http.md", "settings.md", "cli.md"))
PAGES_OF_THE_SERVICE = {"GET /", "GET /docs", "GET /openapi.json"}
BODIES = {
    "GenerateRequest": "## Fields of `POST /generate` and `POST /generate/conditional`",
    "InterpolateRequest": "## Fields of `POST /interpolate`",
    "VariationsRequest": "## Fields of `POST /variations`",
    "ImagesRequest": "## Fields of `POST /v1/images/generations`",
}


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.client.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def rows_of_status(status: int) -> list[str]:
    lines = section(HTTP, "## Status codes").splitlines()
    return [line for line in lines if line.startswith(f"| {status} |")]


# Settings.


def test_every_setting_has_a_row() -> None:
    rows = first_cells(SETTINGS.read_text())
    expected = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    assert expected - rows == set()
    assert {name for name in rows if name.startswith(PREFIX)} - expected == {*OF_THE_CLIENT}


def test_rows_of_settings_show_the_default() -> None:
    rows = re.findall(r"^\| `(FIGMENT_\w+)` \| ([^|]+) \|", SETTINGS.read_text(), re.MULTILINE)
    shown = {name: default.strip("`") for name, default in rows}
    for name, field in Settings.model_fields.items():
        if field.default is not None:
            default = str(field.default)
            default = default.lower() if isinstance(field.default, bool) else default
            assert shown[f"{PREFIX}{name.upper()}"] == default, name


# Commands.


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """(name, command) of each command that can run."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield name, command
    if isinstance(command, click.Group):
        for word, each in command.commands.items():
            yield from commands(each, f"{name} {word}")


BORROWS = {"python -m training build": "python -m training train"}
"""Commands that also take the options of another one, whose table lists them."""
COMMANDS = [
    *commands(service, "python -m service"),
    *commands(training, "python -m training"),
]


def test_first_table_lists_every_command() -> None:
    text = CLI.read_text()
    for name, _ in COMMANDS:
        assert f"| [`{name}`]" in text


@pytest.mark.parametrize(("name", "command"), COMMANDS[1:], ids=[name for name, _ in COMMANDS[1:]])
def test_every_option_of_a_command_has_a_row(name: str, command: click.Command) -> None:
    rows = first_cells(section(CLI, f"## {name}"))
    options = {each.opts[0] for each in command.params if isinstance(each, click.Option)}
    if other := BORROWS.get(name):
        options -= first_cells(section(CLI, f"## {other}"))
        rows -= first_cells(section(CLI, f"## {other}"))
    assert options == rows


# HTTP.


@pytest.mark.server
def test_every_endpoint_has_a_row(document: dict[str, Any]) -> None:
    rows = first_cells(section(HTTP, "## Endpoints"))
    assert rows == {name for name, _ in operations(document)} | PAGES_OF_THE_SERVICE


@pytest.mark.server
@pytest.mark.parametrize("schema", BODIES)
def test_every_field_of_a_request_has_a_row(document: dict[str, Any], schema: str) -> None:
    fields = document["components"]["schemas"][schema]["properties"]
    assert set(fields) == first_cells(section(HTTP, BODIES[schema]))


@pytest.mark.server
def test_every_parameter_has_a_row(document: dict[str, Any]) -> None:
    rows = first_cells(section(HTTP, "## Parameters in paths and queries"))
    named = {
        parameter["name"]
        for _, operation in operations(document)
        for parameter in operation.get("parameters", [])
        if parameter["in"] in ("path", "query")
    }
    assert named == rows


@pytest.mark.server
def test_every_format_has_a_row(document: dict[str, Any]) -> None:
    offered = {
        format_
        for _, operation in operations(document)
        for parameter in operation.get("parameters", [])
        if parameter["name"] == "format"
        for format_ in parameter["schema"]["enum"]
    }
    assert offered == first_cells(section(HTTP, "## Formats"))


@pytest.mark.server
def test_every_response_header_has_a_row(document: dict[str, Any]) -> None:
    rows = {name.lower() for name in first_cells(section(HTTP, "## Response headers"))}
    named = {
        header
        for _, operation in operations(document)
        for response in operation["responses"].values()
        for header in response.get("headers", {})
    }
    named |= {*EXPOSED, *(name for name, _ in SECURITY_HEADERS)}
    assert {header.lower() for header in named} - rows == set()


@pytest.mark.server
def test_every_status_has_a_row(document: dict[str, Any]) -> None:
    text = section(HTTP, "## Status codes")
    for name, operation in operations(document):
        for status in operation["responses"]:
            assert f"| {status} |" in text, name


@pytest.mark.server
@pytest.mark.parametrize(("method", "path"), [("GET", "/nowhere"), ("PUT", "/generate")])
def test_problem_of_a_wrong_address_has_a_row(server: Server, method: str, path: str) -> None:
    found = server.client.request(method, path).json()
    (row,) = rows_of_status(found["status"])
    assert found["title"] in row


def test_every_problem_title_has_a_row() -> None:
    def below(kind: type[RequestError]) -> Iterator[type[RequestError]]:
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    for kind in below(RequestError):
        if hasattr(kind, "title"):
            (row,) = rows_of_status(kind.status)
            assert kind.title in row
    (row,) = rows_of_status(InvalidRequest.status)
    assert all(title in row for title in get_args(Unfit))
