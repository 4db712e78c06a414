from __future__ import annotations

import pytest

from service.errors import InvalidRequest
from service.formats.images import check_sheet

FACE = (64, 64, 3)


@pytest.mark.parametrize(
    ("count", "shape", "extension", "columns", "size"),
    [
        (4097, FACE, "png", None, "4160x4096"),
        (1025, FACE, "webp", None, "2112x2048"),
        (257, FACE, "webp", 257, "16448x64"),
        (1024, (256, 256, 3), "jpeg", None, "8192x8192"),
    ],
)
def test_sheet_that_is_too_large_for_its_format(
    count: int, shape: tuple[int, int, int], extension: str, columns: int | None, size: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"{size} does not fit into {extension}"):
        check_sheet(count, shape, extension, columns)


@pytest.mark.parametrize("extension", ["png", "webp", "jpeg"])
def test_sheet_of_as_many_faces_as_an_answer_may_have(extension: str) -> None:
    check_sheet(1024, FACE, extension, None)
