"""The service that a tutorial builds: FastAPI, `UploadFile`, and TensorFlow called in the endpoint."""

from typing import Any

from fastapi import FastAPI, UploadFile
from saved_model import SavedModel

app = FastAPI()
model = SavedModel()


@app.post("/predict")
async def predict(file: UploadFile) -> dict[str, Any]:
    image = model.decode(await file.read())
    return model.answer(model.predict(image[None])[0])
