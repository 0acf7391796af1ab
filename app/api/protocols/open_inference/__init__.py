"""The Open Inference Protocol, version 2, with Triton's extensions, for clients of KServe, Triton and MLServer.

`tensors` holds the codec, `requests` and `responses` the two messages of `infer`; `metadata`, `statistics` and
`repository` answer everything else. `routes` is HTTP, `app.api.protocols.open_inference.rpc` gRPC: both say the same.
"""
