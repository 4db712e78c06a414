"""The plan of a set: a YAML file whose fields are those of ``POST /generate``, and two more.

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

from service.core.image_request import GenerateRequest, Numbers
from service.core.manifest import NAME_PATTERN
from service.datasets.manifest import DatasetPlan
from service.datasets.request import ImageRequest
from service.errors import ClientError, DatasetError
from service.formats.registry import SUFFIXES

MAX_PLAN_BYTES = 1 << 20
MAX_IMAGES_IN_FILE = 1_000_000
"""Images."""


class PlanFile(GenerateRequest):
    """What stands in it."""

    n: Numbers = Field(description="Images; or, beside a list of labels, how many of each.")
    model: Annotated[str, Field(pattern=NAME_PATTERN)]
    format: str = "webdataset"
    images_per_file: Annotated[int, Field(ge=1, le=MAX_IMAGES_IN_FILE)] | None = None

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        if value not in SUFFIXES:
            formats = ", ".join(sorted(SUFFIXES))
            raise PydanticCustomError("format", "should be one of {formats}", {"formats": formats})
        return value

    @field_validator("verify")
    @classmethod
    def _not_verified(cls, value: float | None) -> None:
        if value is not None:
            raise PydanticCustomError(
                "verify",
                "which images pass is found one after the other, so files could not be made apart "
                "from each other; `python -m service fetch --verify` does it",
            )

    def plan(self) -> DatasetPlan:
        """Raises ``ClientError`` where fields do not fit together."""
        if isinstance(self.n, list) and len(self.n) != max(len(self.labels), 1):
            raise ClientError(
                f"n has {len(self.n)} counts for {len(self.labels)} labels: it is one number, or "
                "a list with one for each entry of label"
            )
        order = ImageRequest(
            n=self.n,
            label=self.label,
            seed=self.seed,
            offset=self.offset,
            model=self.model,
            version=self.version,
            truncation=self.truncation,
        )
        return DatasetPlan(order, self.format, self.images_per_file)


def read_plan(path: Path) -> DatasetPlan:
    """Raises ``DatasetError`` with the place in the file and what would have been right."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_PLAN_BYTES + 1)
        if len(text) > MAX_PLAN_BYTES:
            raise DatasetError(f"{path} is larger than {MAX_PLAN_BYTES} bytes: it is no plan")
        root = yaml.compose(text, yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # dates that are none are a ValueError
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or error
        raise DatasetError(f"{_place(path, mark)}: this is no YAML: {why}") from error
    except RecursionError:
        raise DatasetError(f"{path}: lists lie too deep in each other for a plan") from None
    if not isinstance(root, yaml.MappingNode):
        raise DatasetError(f"{path}: a plan is a list of fields, such as `model: anime-faces`")
    _refuse_repeated(path, root)
    try:
        return PlanFile.model_validate(content).plan()
    except ValidationError as error:
        faults = [_explain(path, root, fault) for fault in error.errors(include_url=False)]
        raise DatasetError("\n".join(faults)) from error
    except ClientError as error:
        raise DatasetError(f"{path}: {error}") from error


def _refuse_repeated(path: Path, root: yaml.MappingNode) -> None:
    """Of the same key in a mapping YAML's library would take the last."""
    nodes, looked_at = [root], set()  # what has a name in YAML may be in many places
    while nodes:
        node = nodes.pop()
        if id(node) in looked_at or isinstance(node, yaml.ScalarNode):
            continue
        looked_at.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
            continue
        seen = set()
        for key, value in node.value:
            if (key.tag, key.value) in seen:
                place = _place(path, key.start_mark)
                raise DatasetError(f"{place}: {key.value} stands there twice")
            seen.add((key.tag, key.value))
            nodes.append(value)


def _explain(path: Path, root: yaml.MappingNode, fault: Any) -> str:
    """A sentence with the line that it is about."""
    problem = fault["msg"]
    if fault["type"] == "missing":
        return f"{path}: {fault['loc'][0]} is missing"
    if fault["type"] == "label":
        problem += ". What YAML takes for a number, or for yes or no, is put in quotes: '7'"
    if not fault["loc"]:
        unknown = [key for key, _ in root.value if key.value not in PlanFile.model_fields]
        return f"{_place(path, unknown[0].start_mark if unknown else None)}: {problem}"
    name = fault["loc"][0]
    mark = next((key.start_mark for key, _ in root.value if key.value == name), None)
    return f"{_place(path, mark)}: {name}: {problem}"


def _place(path: Path, mark: Any) -> str:
    return f"{path}, line {mark.line + 1}" if mark else str(path)
