"""Ask a service with the KServe SDK's two inference clients, and print what they got as JSON.

python kserve_sdk.py URL GRPC_ADDRESS MODEL PICTURE…. It runs in the environment of the clients.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def request_of(model: str, values: Any, datatype: str, *, binary: bool, outputs: Any = None) -> InferRequest:
    tensor = InferInput(name="image", shape=list(values.shape), datatype=datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[tensor], request_id="order-42", request_outputs=outputs)


async def main(url: str, address: str, model: str, pictures: Any) -> dict[str, Any]:
    pixels = np.arange(2 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(2, 28, 28, 1)
    found: dict[str, Any] = {}
    rest = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    async with InferenceGRPCClient(address) as rpc:

        async def by_rest(request: InferRequest) -> Any:
            answer = await rest.infer(url, request, model_name=model)
            return answer.outputs[0].as_numpy().tolist()

        async def by_rpc(request: InferRequest) -> Any:
            return (await rpc.infer(request)).outputs[0].as_numpy().tolist()

        for road, ask in (("rest", by_rest), ("grpc", by_rpc)):
            found[road] = {
                "by_bytes": await ask(request_of(model, pictures, "BYTES", binary=True)),
                "by_pixels": await ask(request_of(model, pixels, "UINT8", binary=True)),
                "by_values": await ask(request_of(model, pixels, "UINT8", binary=False)),
            }
        binary = [RequestedOutput("probabilities", {"binary_data": True})]
        found["rest"]["to_binary"] = await by_rest(request_of(model, pictures, "BYTES", binary=True, outputs=binary))
        found["rest"]["live"] = await rest.is_server_live(url)
        found["rest"]["ready"] = await rest.is_server_ready(url)
        found["rest"]["model_ready"] = await rest.is_model_ready(url, model)
        found["rest"]["other_ready"] = await rest.is_model_ready(url, "no-such-model")
        found["grpc"]["live"] = await rpc.is_server_live()
        found["grpc"]["ready"] = await rpc.is_server_ready()
        found["grpc"]["model_ready"] = await rpc.is_model_ready(model)
        try:
            await rest.infer(url, request_of(model, pictures, "BYTES", binary=True), model_name="no-such-model")
        except httpx.HTTPStatusError as exc:
            found["rest"]["error"] = str(exc)
    await rest.close()
    return found


if __name__ == "__main__":
    _, url, address, model, *files = sys.argv
    pictures = np.array([Path(file).read_bytes() for file in files], np.object_)
    json.dump(asyncio.run(main(url, address, model, pictures)), sys.stdout)
