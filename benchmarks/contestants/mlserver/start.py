"""Write MLServer's two settings files for this run and become `mlserver start`."""

import json
import os
import sys
import tempfile
from pathlib import Path

from saved_model import BATCH_SIZE, PORT

folder = Path(tempfile.mkdtemp(prefix="mlserver-"))
settings = {
    "host": "127.0.0.1",
    "http_port": PORT,
    "grpc_port": int(os.environ["BENCHMARK_SPARE_PORT"]),
    "metrics_endpoint": None,
    "parallel_workers": 0,
    "debug": False,
    "environments_dir": str(folder),
}
model = {
    "name": "classifier",
    "implementation": "service.Classifier",
    "max_batch_size": BATCH_SIZE,
    "max_batch_time": 0.002,
}
(folder / "settings.json").write_text(json.dumps(settings))
(folder / "model-settings.json").write_text(json.dumps(model))
os.environ["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
program = str(Path(sys.executable).with_name("mlserver"))
os.execv(program, [program, "start", str(folder)])  # noqa: S606 - no shell is what we want
