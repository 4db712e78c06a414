"""The command ``figment``: all commands, in every folder, with or without PyTorch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from figment.__main__ import main
from service.cli.main import main as service
from tests.helpers.server import ROOT
from training.cli import main as training

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; sys.path.append({root!r}); "


def figment(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Exit status or last words of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["figment", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def test_figment_lists_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert figment(["--help"], monkeypatch) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert {"serve", *service.commands, *training.commands} <= listed


@pytest.mark.parametrize("command", ["serve", "fetch", "train"])
def test_figment_runs_commands_of_both_packages(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert figment([command, "--help"], monkeypatch) == 0
    assert f"Usage: figment {command} " in capsys.readouterr().out


def test_errors_of_training_are_sentences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert figment(["resume", str(tmp_path)], monkeypatch) == 1
    assert "is not the folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize(("module", "words"), [("figment", ["train"]), ("training", ["--help"])])
def test_missing_torch_is_a_sentence(module: str, words: list[str]) -> None:
    code = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", WITHOUT_TORCH.format(root=str(ROOT)) + code, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search("training needs torch, .*`make develop` installs", done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_commands_of_the_service_work_without_torch_in_another_folder(tmp_path: Path) -> None:
    code = WITHOUT_TORCH.format(root=str(ROOT)) + "from figment.__main__ import main; main()"
    for words, said in ((["fetch", "--help"], "--out"), (["--help"], "make-dataset")):
        command = [sys.executable, "-c", code, *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert said in done.stdout
    assert "Commands of training are not listed: training needs torch" in done.stdout
