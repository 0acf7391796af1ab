"""The command `imageclass`: the commands of `python -m app` and of `python -m training`, and shell completion."""

import sys
from pathlib import Path

from app.system.invocation import SCRIPT, command_line, plain_ends


def main() -> None:
    """Run the command that the command line names."""
    with plain_ends():
        from imageclass.commands import cli
        from imageclass.completion import COMPLETION_VARIABLE, prepare_completion

        prepare_completion()
        called = SCRIPT if Path(sys.argv[0]).name == SCRIPT else command_line(SCRIPT)
        cli(prog_name=called, complete_var=COMPLETION_VARIABLE)


if __name__ == "__main__":
    main()
