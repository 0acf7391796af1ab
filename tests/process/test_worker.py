"""A worker shares what its parent has imported."""

import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import sys
from app.process.worker import preload
preload()
preloaded = set(sys.modules)
from app.main import create_app, load_from
from app.settings import Settings
settings = Settings(model_store=sys.argv[1], engine="openvino")
create_app(settings, load_from(settings))
print(*sorted(name for name in set(sys.modules) - preloaded if not name.startswith("encodings.")))
"""


def test_a_worker_imports_nothing_that_its_parent_could_share(repository: Path) -> None:
    command = [sys.executable, "-c", _SCRIPT, str(repository / "model_store")]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == ""
