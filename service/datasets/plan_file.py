"""Plan of a dataset: a YAML file with the fields of ``POST /generate``, a format and a file size.

model: anime-faces
label: [red eyes, blue eyes]
n: [300, 100]
seed: 3
format: parquet
images_per_file: 100
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from service.core.image_request import Numbers
from service.core.manifest import NAME_PATTERN
from service.core.set_request import SetRequest
from service.datasets.manifest import DatasetPlan
from service.errors import DatasetError, InvalidRequest
from service.formats.registry import FILE_FORMATS, default_format

MAX_PLAN_BYTES = 1 << 20
MAX_IMAGES_IN_FILE = 1_000_000


class PlanFile(SetRequest):
    """Content of the file."""

    n: Numbers = Field(description="Number of images; or, with a list of labels, a list.")
    model: Annotated[str, Field(pattern=NAME_PATTERN)]
    format: str | None = None
    images_per_file: Annotated[int, Field(ge=1, le=MAX_IMAGES_IN_FILE)] | None = None

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str | None) -> str | None:
        if value is not None and value not in FILE_FORMATS:
            formats = ", ".join(sorted(FILE_FORMATS))
            raise PydanticCustomError("format", "should be one of {formats}", {"formats": formats})
        return value

    @field_validator("verify")
    @classmethod
    def _not_verified(cls, value: float | None) -> None:
        if value is not None:
            raise PydanticCustomError(
                "verify",
                "cannot be used here: verified images are found one after another, and files are "
                "built in parallel; use `python -m service fetch --verify`",
            )

    def plan(self) -> DatasetPlan:
        """Raises ``InvalidRequest``."""
        self.check_fields_agree()
        request = SetRequest(**self.model_dump(include={*SetRequest.model_fields}))
        return DatasetPlan(
            request, self.format or default_format(request.layout), self.images_per_file
        )


def read_plan(path: Path) -> DatasetPlan:
    """Plan in the file at ``path``. Raises ``DatasetError`` with line and allowed values."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_PLAN_BYTES + 1)
        if len(text) > MAX_PLAN_BYTES:
            raise DatasetError(f"{path} is larger than {MAX_PLAN_BYTES} bytes: it is not a plan")
        root = yaml.compose(text, yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # an invalid date is a ValueError
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or error
        raise DatasetError(f"{_location(path, mark)}: invalid YAML: {why}") from error
    except RecursionError:
        raise DatasetError(f"{path}: lists are nested too deeply for a plan") from None
    if not isinstance(root, yaml.MappingNode):
        raise DatasetError(f"{path}: a plan is a list of fields, such as `model: anime-faces`")
    _check_repeated(path, root)
    try:
        return PlanFile.model_validate(content).plan()
    except ValidationError as error:
        faults = [_explain(path, root, fault) for fault in error.errors(include_url=False)]
        raise DatasetError("\n".join(faults)) from error
    except InvalidRequest as error:
        raise DatasetError(f"{path}: {error}") from error


def _check_repeated(path: Path, root: yaml.MappingNode) -> None:
    """Raise ``DatasetError`` for a repeated key, of which PyYAML would use the last."""
    nodes, visited = [root], set()  # an alias can put one node in many places
    while nodes:
        node = nodes.pop()
        if id(node) in visited or isinstance(node, yaml.ScalarNode):
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
            continue
        seen = set()
        for key, value in node.value:
            if (key.tag, key.value) in seen:
                where = _location(path, key.start_mark)
                raise DatasetError(f"{where}: {key.value} is given twice")
            seen.add((key.tag, key.value))
            nodes.append(value)


def _explain(path: Path, root: yaml.MappingNode, fault: Any) -> str:
    """Error message with the line number."""
    problem = fault["msg"]
    if fault["type"] == "missing":
        return f"{path}: {fault['loc'][0]} is missing"
    if fault["type"] == "label":
        problem += ". Put labels that YAML reads as a number or as yes or no in quotes: '7'"
    if not fault["loc"]:
        unknown = [key for key, _ in root.value if key.value not in PlanFile.model_fields]
        return f"{_location(path, unknown[0].start_mark if unknown else None)}: {problem}"
    name = fault["loc"][0]
    mark = next((key.start_mark for key, _ in root.value if key.value == name), None)
    return f"{_location(path, mark)}: {name}: {problem}"


def _location(path: Path, mark: Any) -> str:
    return f"{path}, line {mark.line + 1}" if mark else str(path)
