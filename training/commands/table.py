"""The commands of `python -m training`."""

from app.cli.command_line import Listed

COMMANDS = {
    "fit": Listed("training.commands.fit:fit", "Train a classifier and publish it as a new version."),
    "evaluate": Listed("training.commands.evaluate:evaluate", "Measure a model or a service on labelled pictures."),
    "audit": Listed("training.commands.audit:audit", "Find duplicates, wrong labels and bad files in a data set."),
    "review": Listed("training.commands.review:review", "Correct labels on a page in the browser."),
    "compare": Listed("training.commands.compare:compare", "Test whether two models differ on the same pictures."),
    "sweep": Listed("training.commands.sweep:sweep", "Try several candidates in a time budget; publish the best."),
    "folds": Listed("training.commands.folds:folds", "Write the folds of a cross-validation to a CSV file."),
}
