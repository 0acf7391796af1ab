"""Ask a service with tritonclient for the outputs beside the probabilities, and print what it got as JSON.

python triton_outputs.py http|grpc ADDRESS MODEL PICTURE…. It runs in the environment of the clients.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("decision", "familiarity", "probabilities")


def main(protocol: str, address: str, model: str, *files: str) -> dict[str, Any]:
    triton = importlib.import_module(f"tritonclient.{protocol}")
    pictures = np.array([Path(file).read_bytes() for file in files], np.object_)
    with triton.InferenceServerClient(address) as client:
        tensor = triton.InferInput("image", [len(pictures)], "BYTES")
        tensor.set_data_from_numpy(pictures)
        outputs = [triton.InferRequestedOutput(name) for name in NAMES]
        found = client.infer(model, [tensor], outputs=outputs, parameters={"false_alarms": 0.05})
        metadata = client.get_model_metadata(model, **({} if protocol == "http" else {"as_json": True}))
        return {
            "decision": [each.decode() for each in found.as_numpy("decision")],
            "familiarity": found.as_numpy("familiarity").tolist(),
            "probabilities": found.as_numpy("probabilities").tolist(),
            "unasked": client.infer(model, [tensor]).as_numpy("decision"),
            "outputs": [each["name"] for each in metadata["outputs"]],
        }


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
