"""The tutorial's service as FastAPI's documentation would have it.

Tuned: a plain `def`, which runs in a thread pool instead of blocking the event loop (fastapi.tiangolo.com/async,
"Very technical details"); the harness adds a worker for each core (…/deployment/server-workers) and no access log.
"""

from typing import Any

from fastapi import FastAPI, UploadFile
from saved_model import SavedModel

app = FastAPI()
model = SavedModel()
model.warm_up()


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, Any]:
    image = model.decode(file.file.read())
    return model.answer(model.predict(image[None])[0])
