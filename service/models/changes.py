"""What is different after a reload, in a line for the log."""

from __future__ import annotations

from collections.abc import Mapping


def told(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """By name: ``added b, c; changed a; removed d``; empty if nothing is."""
    names = {
        "added": [name for name in after if name not in before],
        "changed": [name for name in after if name in before and after[name] != before[name]],
        "removed": [name for name in before if name not in after],
    }
    return "; ".join(f"{what} {', '.join(which)}" for what, which in names.items() if which)


def moved(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Aliases and versions: ``stable 1 -> 2, canary none -> 3``; empty if none has moved."""
    return ", ".join(
        f"{alias} {before.get(alias, 'none')} -> {after.get(alias, 'none')}"
        for alias in sorted({*before, *after})
        if before.get(alias) != after.get(alias)
    )
