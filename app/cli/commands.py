"""The commands of `python -m app`."""

from app.cli.command_line import Listed

COMMANDS = {
    "serve": Listed("app.cli.serve:serve", "Serve models over HTTP."),
    "predict": Listed("app.cli.predict.command:predict", "Classify pictures, here or by a running service."),
    "models": Listed("app.cli.models:models_cli", "List, check, pin, promote and copy versions of models."),
    "explain": Listed("app.cli.explain:explain", "Draw a heat map of a label over a picture."),
    "bench": Listed("app.cli.bench:bench", "Measure how fast this machine runs a model, without HTTP."),
}
