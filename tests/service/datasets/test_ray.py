"""``make-dataset --ray`` without Ray; with it: ``tests/service/cluster/test_bulk.py``."""

from __future__ import annotations

from tests.helpers.make_dataset import SMALL, Command


def test_without_ray(command: Command) -> None:
    """As where the extra is not installed."""
    hidden = command.folder / "hidden" / "ray"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('it is not here')")
    command.variables = {"PYTHONPATH": str(hidden.parent)}
    told = command.run(SMALL, "--ray", "auto", fails=True)
    assert 'pip install "figment[ray]"' in told
    command.run(SMALL)  # which does without
