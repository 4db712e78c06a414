"""The command line: ``python -m training COMMAND``.

One module a command; ``options.py`` holds the options that several commands share.
"""

from training.cli.audit import audit
from training.cli.build import build
from training.cli.compare import compare
from training.cli.demo import demo
from training.cli.evaluate import evaluate
from training.cli.export import export
from training.cli.group import main
from training.cli.recommend import recommend
from training.cli.resume import resume
from training.cli.sample import sample
from training.cli.train import train

for command in (
    build,
    train,
    resume,
    sample,
    evaluate,
    compare,
    recommend,
    export,
    audit,
    demo,
):
    main.add_command(command)

__all__ = [
    "audit",
    "build",
    "compare",
    "demo",
    "evaluate",
    "export",
    "main",
    "recommend",
    "resume",
    "sample",
    "train",
]
