"""Classify a picture with the client that openapi-python-client has made of the document, and print JSON.

python generated.py URL PICTURE, with the package `made_client` on the path. It runs in the environment of the clients.
"""

import json
import sys
from io import BytesIO
from pathlib import Path

from made_client import Client  # type: ignore[import-not-found]
from made_client.api.predict import predict_batch_predict_batch_post, predict_predict_post  # type: ignore[import-not-found]
from made_client.models import (  # type: ignore[import-not-found]
    PredictBatchPredictBatchPostBody,
    PredictPredictPostFilesBody,
)
from made_client.types import File  # type: ignore[import-not-found]

url, picture = sys.argv[1:]


def file() -> File:
    return File(payload=BytesIO(Path(picture).read_bytes()), file_name="seven.png", mime_type="image/png")


client = Client(base_url=url, raise_on_unexpected_status=True)
form = predict_predict_post.sync(client=client, body=PredictPredictPostFilesBody(file=file()), top_k=3)
body = predict_predict_post.sync(client=client, body=file(), top_k=3)
batch = predict_batch_predict_batch_post.sync(client=client, body=PredictBatchPredictBatchPostBody(files=[file()]))
json.dump(
    {"form": form.to_dict(), "body": body.to_dict(), "batch": batch.predictions[0].to_dict()},
    sys.stdout,
)
