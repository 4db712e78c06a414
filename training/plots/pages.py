"""HTML pages that need no network and no server, light or dark as the reader's system is."""

from __future__ import annotations

import base64
import html

STYLE = """
:root { color-scheme: light dark; --ink: #24292f; --faint: #57606a; --back: #fff; --panel: #f6f8fa;
  --line: #d0d7de; --link: #0969da; --good: #1a7f37; --fair: #9a6700; --poor: #cf222e;
  --unknown: #6e7781; --curve-0: #0969da; --curve-1: #bc4c00; --curve-2: #1a7f37;
  --curve-3: #8250df; --curve-4: #cf222e }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #9aa4ae; --back: #0d1117;
  --panel: #161b22; --line: #3d444d; --link: #58a6ff; --good: #3fb950; --fair: #d29922;
  --poor: #ff7b72; --unknown: #8b949e; --curve-0: #58a6ff; --curve-1: #f0883e; --curve-2: #3fb950;
  --curve-3: #bc8cff; --curve-4: #ff7b72 } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--back) }
h1, h2, h3, h4 { line-height: 1.25 }
h1, h2 { overflow-wrap: anywhere }
a { color: var(--link) }
table { border-collapse: collapse; font-size: 14px }
th, td { border: 1px solid var(--line); padding: .25rem .6rem; text-align: left }
th { background: var(--panel) }
.wide { overflow-x: auto }
img { max-width: 100%; height: auto }
code { background: var(--panel); padding: 0 .25rem; border-radius: 4px; overflow-wrap: anywhere }
small, figcaption { color: var(--faint) }
figure { margin: 0 }
.scores, .grids { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)) }
.score { border: 1px solid var(--line); border-left: .5rem solid; border-radius: 6px;
  padding: 0 1rem }
.score h2 { font-size: 1.25rem }
.good { border-left-color: var(--good) }
.fair { border-left-color: var(--fair) }
.poor { border-left-color: var(--poor) }
.unknown { border-left-color: var(--unknown) }
.score strong { font-size: 1.6rem }
"""
SMALL = 48
"""Pixels of a side below which browsers would blur an enlarged image."""


def document(title: str, body: str, more_style: str = "") -> str:
    """Whole page; ``title`` is text, ``body`` is HTML with one ``h1``."""
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<title>{html.escape(title)}</title>\n<meta name="viewport" content="width=device-width">'
        f"\n<style>{STYLE}{more_style}</style>\n<main>\n{body}\n</main>\n</html>\n"
    )


def scrolling(name: str, table: str) -> str:
    """``table`` in a region of its own, which scrolls on a narrow screen, by keyboard too."""
    name = html.escape(name)
    return f'<div class="wide" role="region" aria-label="{name}" tabindex="0">{table}</div>'


def inline_png(content: bytes) -> str:
    """Address of a PNG inside the page."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def image(source: str, alt: str, size: tuple[int, int], side: int) -> str:
    """Picture as wide as its place; ``size`` in pixels, with single images of ``side`` pixels."""
    style = "width:100%" + (";image-rendering:pixelated" if side < SMALL else "")
    width, height = size
    return (
        f'<img src="{html.escape(source)}" alt="{html.escape(alt)}" width="{width}" '
        f'height="{height}" style="{style}">'
    )
