"""Plan of a dataset: a YAML file with the fields of ``POST /generate``, a format and a file size.

model: anime-faces
label: [red eyes, blue eyes]
n: [300, 100]
seed: 3
format: parquet
images_per_file: 100

In place of ``label`` and ``n``, ``like`` and ``to`` ask for what the classes of a folder lack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from service.core.manifest import NAME_PATTERN
from service.core.set_request import SetRequest
from service.datasets.manifest import DatasetPlan
from service.errors import DatasetError, InvalidRequest
from service.formats.registry import FILE_FORMATS, default_format, shows_class

MAX_PLAN_BYTES = 1 << 20
MAX_IMAGES_IN_FILE = 1_000_000


class PlanFile(SetRequest):
    """Content of the file."""

    like: str | None = Field(
        None, description="Labelled folder; a relative path is below the folder of the plan."
    )
    to: Annotated[int, Field(ge=1)] | Literal["largest"] | None = Field(
        None, description="Images of each class, those of ``like`` included."
    )
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
                "built in parallel; use `figment fetch --verify`",
            )

    @model_validator(mode="after")
    def _images_are_counted(self) -> Self:
        if (self.like is None) != (self.to is None):
            raise PydanticCustomError("like", "like and to belong together: give both")
        counted = "n" in self.model_fields_set
        if self.like is None and not counted:
            raise PydanticCustomError("n", "n is missing: give it, or like and to")
        if self.like is not None and (counted or self.label is not None):
            raise PydanticCustomError("like", "like gives labels and counts: omit label and n")
        return self

    def request(self, missing: Mapping[str, int]) -> None:
        """Request these counts by label, in place of ``like`` and ``to``."""
        labels, counts = [*missing], [*missing.values()]
        self.label = [*labels] if len(labels) > 1 else labels[0]
        self.n = counts if len(labels) > 1 else counts[0]
        if not shows_class(self.format or default_format(self.layout), self.layout):
            self.by = None  # it was for counting alone

    def plan(self) -> DatasetPlan:
        """Raises ``InvalidRequest``."""
        self.check_fields_agree()
        request = SetRequest(**self.model_dump(include={*SetRequest.model_fields}))
        return DatasetPlan(
            request, self.format or default_format(request.layout), self.images_per_file
        )


Lacking = Callable[[PlanFile], Mapping[str, int]]
"""Labels with counts for a plan with ``like``."""


def read_plan(path: Path, lacking: Lacking | None = None) -> DatasetPlan:
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
        plan = PlanFile.model_validate(content)
        if plan.like is not None:
            if lacking is None:
                raise DatasetError(f"{path}: like cannot be used here, but in `make-dataset`")
            plan.like = str(path.parent / plan.like)
            plan.request(lacking(plan))
        return plan.plan()
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
