"""NVIDIA Triton Inference Server: the binary and the Python backend of the `nvidia-pytriton` wheel.

Tuned: two instances on the CPU, dynamic batching without a delay (docs.nvidia.com/deeplearning/triton-inference-server,
"Batchers" and "Optimization"). The wheel has no OpenVINO backend, so a model of the Python backend decodes and infers,
as its documentation does for preprocessing. It needs a system's own Python 3.11 and glibc 2.35.
"""

import os
import shutil
import sys
from pathlib import Path

from saved_model import BATCH_SIZE, BUNDLE, CORES, PORT

HERE = Path(__file__).parent
MODEL = BUNDLE.parent.name
CONFIG = f"""
backend: "python"
max_batch_size: {BATCH_SIZE}
input [ {{ name: "image" data_type: TYPE_STRING dims: [ 1 ] }} ]
output [ {{ name: "probabilities" data_type: TYPE_FP32 dims: [ -1 ] }} ]
dynamic_batching {{ }}
instance_group [ {{ count: {CORES} kind: KIND_CPU }} ]
"""


def main() -> None:
    packages = Path(sys.prefix) / "lib" / "python3.11" / "site-packages"
    server = packages / "pytriton" / "tritonserver"
    stub = server / "backends" / "python" / "triton_python_backend_stub"
    if not stub.exists():
        shutil.copy(server / "python_backend_stubs" / "3.11" / stub.name, stub)
    repository = Path(os.environ["BENCHMARK_WORK"]) / "triton"
    shutil.rmtree(repository, ignore_errors=True)
    version = repository / MODEL / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    shutil.copy(HERE / "model.py", version)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), os.environ["PYTHONPATH"]])}
    arguments = [
        f"--model-repository={repository}",
        f"--backend-directory={server / 'backends'}",
        f"--http-port={PORT}",
        f"--grpc-port={os.environ['BENCHMARK_SPARE_PORT']}",
        "--allow-metrics=false",
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--backend-config=python,stub-timeout-seconds=60",
        "--log-info=false",
    ]
    program = str(server / "bin" / "tritonserver")
    os.execve(program, [program, *arguments], environment)  # noqa: S606 - its own files


if __name__ == "__main__":
    main()
