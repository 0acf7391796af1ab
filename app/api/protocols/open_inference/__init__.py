"""The Open Inference Protocol, version 2, with Triton's extensions, for clients of KServe, Triton and MLServer.

`tensors` holds the codec, `requests` and `responses` the two messages of `infer`; `metadata`, `statistics` and
`repository` answer everything else. `routes` is for HTTP, `rpc` for gRPC: both give the same answers.
"""
