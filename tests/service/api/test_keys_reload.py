from __future__ import annotations

import threading
from pathlib import Path

import pytest

from service.api.auth import access
from service.api.auth.access import AccessControl
from service.core import api_keys
from service.errors import StartupError
from service.settings import Settings


@pytest.mark.anyio
async def test_slow_disk_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload is given up, and the keys stay."""
    file = tmp_path / "keys"
    file.write_text("team:key-of-the-team")
    control = AccessControl(Settings(api_keys_file=file))
    read, disk = api_keys.read, threading.Event()

    def slow_read(*arguments: object) -> api_keys.ApiKeys:
        assert disk.wait(30)
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(api_keys, "read", slow_read)
    monkeypatch.setattr(access, "READ_SECONDS", 0.05)
    file.write_text("other:key-of-another")
    with pytest.raises(StartupError, match="was not read within"):
        await control.reload()
    assert list(control.keys_by_name) == ["team"]
    disk.set()
    monkeypatch.setattr(access, "READ_SECONDS", 30)
    await control.reload()
    assert list(control.keys_by_name) == ["other"]
