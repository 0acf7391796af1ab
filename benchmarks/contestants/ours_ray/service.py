"""This project on Ray Serve: deploy/ray/serve_app.py, one replica per core, behind HAProxy (docs/how-to/ray.md)."""

import logging
import os
import signal
from pathlib import Path

import ray
from ray import serve

from deploy.ray.serve_app import app

CORES = len(os.sched_getaffinity(0))

ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, num_cpus=CORES)
serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCHMARK_PORT"])})
store = str(Path(os.environ["BENCHMARK_BUNDLE"]).parents[1])
serve.run(app({"model_store": store, "min_replicas": CORES, "max_replicas": CORES}))
signal.sigwait({signal.SIGTERM, signal.SIGINT})
ray.shutdown()
