"""The OpenAPI document: schemas, examples, and what each route may answer."""
