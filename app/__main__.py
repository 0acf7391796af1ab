"""The service's command line: `python -m app serve | predict | explain | bench | models`."""

from app.system.invocation import command_line, plain_ends

with plain_ends():
    import typer

    from app.cli.bench import bench
    from app.cli.explain import explain
    from app.cli.models import models_cli
    from app.cli.predict.command import predict
    from app.cli.serve import serve

    cli = typer.Typer(
        help="Serve image classifiers, ask them, and look at what a model store holds.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in (serve, predict, explain, bench):
        cli.command()(command)
    cli.add_typer(models_cli, name="models")

    if __name__ == "__main__":
        cli(prog_name=command_line("app"))
