"""The tree of what can go wrong. It knows nothing of HTTP: `app.api.errors` holds the one table to status codes.

ImageclassError
├── ImageError                    one picture cannot be used; its neighbours are not touched
│   ├── ImageTooLarge
│   ├── UnsupportedFormat
│   ├── UndecodableImage
│   └── UnsupportedLayout         it is valid, but of a kind that is not supported
├── RequestError                  the call itself is wrong
│   ├── MalformedRequest
│   ├── UploadTooLarge
│   ├── UnsupportedMediaType
│   ├── HeadersTooLarge
│   ├── UnsupportedHttpVersion
│   ├── UnsupportedTransferCoding
│   ├── ReceiveTimeout
│   ├── Unauthorized
│   ├── UnknownHost
│   ├── ModelNotFound
│   ├── ModelNotNamed
│   ├── ModelControlOff
│   └── ModelControlRefused
├── ServingError                  the picture is fine, but no answer came
│   ├── Overloaded
│   ├── ShuttingDown
│   ├── DeadlineExceeded
│   └── InferenceFailed
├── BundleError                   a bundle cannot be trusted, or is not there
│   ├── BundleNotFound
│   ├── BundleTampered
│   ├── BundleIncompatible
│   └── SelfCheckFailed
├── StoreNotWritable              a command could not change the model store
├── StoreConflict                 a command does not fit what the model store holds
├── ObjectStoreError              a bucket could not be used
│   ├── ObjectStoreUnreachable    it may work later
│   └── ObjectStoreRefused        the address or the credentials are at fault
├── EngineUnavailable             the engine asked for is not installed or cannot run here
├── OutputNotWritable             a command could not write its output
├── OutputConflict                a folder holds the output of another job
├── WorkerEnded                   a process of a command was ended from outside
├── UnusableSource                an archive or a list of pictures cannot be read as one
├── InvalidSetting                a setting is out of its range, or not what it should be
└── ServiceError                  a client could not get an answer from a running service

Every message is a sentence for the person who can fix it: what is wrong and what to do. `code` is its stable name for
programs.
"""

from collections.abc import Iterable
from typing import ClassVar


class ImageclassError(Exception):
    code: ClassVar[str] = "internal_error"


class ImageError(ImageclassError):
    code = "image_error"


class ImageTooLarge(ImageError):
    code = "image_too_large"


class UnsupportedFormat(ImageError):
    code = "unsupported_format"


class UndecodableImage(ImageError):
    code = "undecodable_image"


class UnsupportedLayout(ImageError):
    code = "undecodable_image"


class RequestError(ImageclassError):
    code = "malformed_request"


class MalformedRequest(RequestError):
    code = "malformed_request"


class UploadTooLarge(RequestError):
    code = "upload_too_large"


class UnsupportedMediaType(RequestError):
    """`accept_encoding`: the content codings to send instead, if it is the coding that is not supported."""

    code = "unsupported_media_type"

    def __init__(self, message: str, *, accept_encoding: str = "") -> None:
        super().__init__(message)
        self.accept_encoding = accept_encoding


class HeadersTooLarge(RequestError):
    code = "headers_too_large"


class UnsupportedHttpVersion(RequestError):
    code = "unsupported_http_version"


class UnsupportedTransferCoding(RequestError):
    code = "unsupported_transfer_coding"


class ReceiveTimeout(RequestError):
    code = "receive_timeout"


class Unauthorized(RequestError):
    code = "unauthorized"


class UnknownHost(RequestError):
    code = "unknown_host"


class ModelNotFound(RequestError):
    code = "model_not_found"


class ModelNotNamed(RequestError):
    """The message does not say how to name a model, because HTTP and the command line differ; they add it."""

    code = "model_not_named"

    def __init__(self, served: Iterable[str]) -> None:
        super().__init__(f"Several models are served: {', '.join(sorted(served))}.")


class ModelControlOff(RequestError):
    code = "model_control_off"


class ModelControlRefused(RequestError):
    code = "model_control_refused"


class ExplanationsOff(RequestError):
    code = "explanations_off"


class ServingError(ImageclassError):
    code = "serving_error"


class Overloaded(ServingError):
    """`retry_after_s`: when there should be room again."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ShuttingDown(ServingError):
    code = "shutting_down"


class DeadlineExceeded(ServingError):
    code = "deadline_exceeded"


class InferenceFailed(ServingError):
    code = "inference_failed"


class BundleError(ImageclassError):
    code = "bundle_error"


class BundleNotFound(BundleError):
    code = "bundle_not_found"


class BundleTampered(BundleError):
    code = "bundle_tampered"


class BundleIncompatible(BundleError):
    code = "bundle_incompatible"


class SelfCheckFailed(BundleError):
    code = "self_check_failed"


class StoreNotWritable(ImageclassError):
    code = "store_not_writable"


class StoreConflict(ImageclassError):
    code = "store_conflict"


class ObjectStoreError(ImageclassError):
    code = "object_store_error"


class ObjectStoreUnreachable(ObjectStoreError):
    code = "object_store_unreachable"


class ObjectStoreRefused(ObjectStoreError):
    code = "object_store_refused"


class EngineUnavailable(ImageclassError):
    code = "engine_unavailable"


class OutputNotWritable(ImageclassError):
    code = "output_not_writable"


class OutputConflict(ImageclassError):
    code = "output_conflict"


class WorkerEnded(ImageclassError):
    code = "worker_ended"


class UnusableSource(ImageclassError):
    code = "unusable_source"


class InvalidSetting(ImageclassError):
    code = "invalid_setting"


class ServiceError(ImageclassError):
    """`status` and `answered_code` are those of the service's answer, if it gave one that has them."""

    code = "service_error"

    def __init__(self, message: str, *, status: int | None = None, answered_code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.answered_code = answered_code
