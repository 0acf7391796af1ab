"""All commands in one table, each imported when it is called, so that none pays for another's libraries."""

from app.cli.command_line import Listed, command_line_of
from app.cli.commands import COMMANDS as OF_APP
from training.commands.table import COMMANDS as OF_TRAINING

_ALL = {
    **OF_APP,
    **OF_TRAINING,
    "completion": Listed("imageclass.completion:completion", "Print the completion script of bash, zsh or fish."),
}
_MOST_USED = ("fit", "serve", "predict", "models", "evaluate", "audit", "review", "explain", "compare", "sweep")

cli = command_line_of(
    {
        "Commands": {name: _ALL[name] for name in _MOST_USED},
        "More commands": {name: listed for name, listed in _ALL.items() if name not in _MOST_USED},
    },
    about="Train image classifiers on labelled pictures, serve them, and classify pictures with them.",
)
