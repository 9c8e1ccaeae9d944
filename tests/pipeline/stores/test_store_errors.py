"""Every error of the S3 client becomes one of ours."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest
import urllib3.exceptions
from botocore import exceptions as vendor

from pipeline.core.errors import (
    AccessDenied,
    CredentialsMissing,
    CredentialsRefused,
    InvalidKey,
    InvalidOption,
    NotFound,
    PipelineError,
    StoreError,
    StoreUnavailable,
)
from pipeline.stores.s3_errors import VENDOR_ERRORS, from_vendor_error


def _client_error(code: str, status: int) -> vendor.ClientError:
    response: Any = {"Error": {"Code": code, "Message": "Why."}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return vendor.ClientError(response, "GetObject")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("NoSuchBucket", 404, NotFound("s3://b")),
        ("NoSuchKey", 404, NotFound("s3://b/k")),
        ("404", 404, NotFound("s3://b/k")),
        ("NoSuchUpload", 404, StoreUnavailable("s3://b/k", "GetObject: NoSuchUpload 404 Why.")),
        ("AccessDenied", 403, AccessDenied("s3://b/k", "GetObject: AccessDenied")),
        ("403", 403, AccessDenied("s3://b/k", "GetObject: 403")),
        ("SignatureDoesNotMatch", 403, CredentialsRefused("s3://b/k", "GetObject: SignatureDoesNotMatch")),
        ("InvalidAccessKeyId", 403, CredentialsRefused("s3://b/k", "GetObject: InvalidAccessKeyId")),
        ("ExpiredToken", 400, CredentialsRefused("s3://b/k", "GetObject: ExpiredToken")),
        ("InvalidToken", 400, CredentialsRefused("s3://b/k", "GetObject: InvalidToken")),
        ("401", 401, AccessDenied("s3://b/k", "GetObject: 401")),
        ("400", 400, AccessDenied("s3://b/k", "GetObject: 400")),
        ("RequestTimeTooSkewed", 403, CredentialsRefused("s3://b/k", "GetObject: RequestTimeTooSkewed")),
        ("AuthorizationHeaderMalformed", 400, CredentialsRefused("s3://b/k", "GetObject: AuthorizationHeaderMalformed")),
        ("KeyTooLongError", 400, InvalidKey("s3://b", "k", "Why.")),
        ("SlowDown", 503, StoreUnavailable("s3://b/k", "GetObject: SlowDown 503 Why.")),
        ("InternalError", 500, StoreUnavailable("s3://b/k", "GetObject: InternalError 500 Why.")),
        ("PermanentRedirect", 301, StoreUnavailable("s3://b/k", "GetObject: PermanentRedirect 301 Why.")),
        ("NotImplemented", 501, StoreUnavailable("s3://b/k", "GetObject: NotImplemented 501 Why.")),
        ("", 0, StoreUnavailable("s3://b/k", "GetObject:  0 Why.")),
    ],
)
def test_answers_of_s3_are_translated(code: str, status: int, expected: PipelineError) -> None:
    """Each refusal of a server has one meaning here, with the URI that it is about."""
    found = from_vendor_error(_client_error(code, status), "s3://b/k", "s3://b")
    assert (type(found), found.args) == (type(expected), expected.args)


_EXPECTED = {
    vendor.NoCredentialsError: CredentialsMissing,
    vendor.PartialCredentialsError: CredentialsMissing,
    vendor.CredentialRetrievalError: CredentialsRefused,
    vendor.TokenRetrievalError: CredentialsRefused,
    vendor.UnauthorizedSSOTokenError: CredentialsRefused,
    vendor.LoginRefreshRequired: CredentialsRefused,
    vendor.ProfileNotFound: InvalidOption,
    vendor.NoRegionError: InvalidOption,
    vendor.InvalidRegionError: InvalidOption,
    vendor.ParamValidationError: InvalidOption,
    vendor.ConfigParseError: InvalidOption,
    vendor.InvalidMaxRetryAttemptsError: InvalidOption,
    vendor.EndpointConnectionError: StoreUnavailable,
    vendor.ConnectTimeoutError: StoreUnavailable,
    vendor.ReadTimeoutError: StoreUnavailable,
    vendor.SSLError: StoreUnavailable,
    vendor.ProxyConnectionError: StoreUnavailable,
    vendor.ConnectionClosedError: StoreUnavailable,
    vendor.IncompleteReadError: StoreUnavailable,
    vendor.FlexibleChecksumError: StoreUnavailable,
    vendor.ResponseStreamingError: StoreUnavailable,
    urllib3.exceptions.ProtocolError: StoreUnavailable,
}
_ALL = [
    kind
    for module in (vendor, urllib3.exceptions)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, (vendor.BotoCoreError, urllib3.exceptions.HTTPError))
]


@pytest.mark.parametrize("kind", sorted(set(_ALL), key=str), ids=lambda kind: kind.__name__)
def test_every_error_of_the_client_is_translated(kind: type[Exception]) -> None:
    """No error of botocore or urllib3 leaves its file, those of a later release included; those we know mean what we say."""
    # Each takes other arguments; only the kind and the text matter here.
    error = type(kind.__name__, (kind,), {"__init__": lambda _: None, "__str__": lambda _: "what"})()
    found = from_vendor_error(error, "s3://b/k", "s3://b")
    assert isinstance(error, VENDOR_ERRORS)
    assert isinstance(found, (StoreError, InvalidOption))
    assert pickle.loads(pickle.dumps(found)).args == found.args
    for known, expected in _EXPECTED.items():
        if issubclass(kind, known):
            assert type(found) is expected


def test_there_are_errors_to_translate() -> None:
    """The test above runs over the client's errors, and not over an empty list."""
    assert len(_ALL) > 90
    assert set(_EXPECTED) <= set(_ALL)
