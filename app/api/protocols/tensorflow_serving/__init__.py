"""TensorFlow Serving's REST interface, for its clients.

`requests` and `responses` hold the messages of predict and classify, `metadata` all others; `routes` is for HTTP.
"""
