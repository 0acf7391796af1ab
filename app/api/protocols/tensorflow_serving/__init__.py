"""TensorFlow Serving's REST interface, for clients that were written for it.

`requests` and `responses` are the messages of predict and classify, `metadata` is everything else; `routes` is HTTP.
"""
