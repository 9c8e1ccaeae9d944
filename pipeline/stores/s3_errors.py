"""What boto3, botocore and their transport raise, as errors of this pipeline, without secrets."""

from __future__ import annotations

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
    StoreUnavailable,
)
from pipeline.stores.base import without_secrets

VENDOR_ERRORS = (vendor.BotoCoreError, vendor.ClientError, urllib3.exceptions.HTTPError)

# Of these what was tried is not shown, as it may hold a secret.
_MISSING = (vendor.NoCredentialsError, vendor.PartialCredentialsError, vendor.UnknownCredentialError, vendor.NoAuthTokenError)
_DENIED = (
    vendor.CredentialRetrievalError, vendor.TokenRetrievalError, vendor.UnknownTokenProviderError,
    vendor.RefreshWithMFAUnsupportedError, vendor.MetadataRetrievalError, vendor.SSOError, vendor.LoginError,
)  # fmt: skip
_MISCONFIGURED = (
    vendor.ProfileNotFound,
    vendor.ConfigNotFound,
    vendor.ConfigParseError,
    vendor.InvalidConfigError,
    vendor.InvalidRetryConfigurationError,
    vendor.BaseEndpointResolverError,
    vendor.InvalidEndpointConfigurationError,
    vendor.UnknownRegionError,
    vendor.ValidationError,
    vendor.ParamValidationError,
    vendor.InvalidS3AddressingStyleError,
    vendor.UnsupportedS3ConfigurationError,
)
_REFUSED_CODES = {
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
"""What is said of credentials, whatever object they were used for."""


def from_vendor_error(error: Exception, uri: str, bucket_uri: str) -> PipelineError:
    """Return our error for one of botocore's or urllib3's."""
    if isinstance(error, vendor.ClientError):
        return _from_client_error(error, uri, bucket_uri)
    name = type(error).__name__
    if isinstance(error, _MISSING):
        return CredentialsMissing(uri, name)
    if isinstance(error, _DENIED):
        return CredentialsRefused(uri, f"{name}: they could not be got; log in again, or name others by AWS_PROFILE")
    detail = without_secrets(str(error))
    if isinstance(error, _MISCONFIGURED):
        return InvalidOption("AWS configuration", name, detail)
    return StoreUnavailable(uri, f"{name}: {detail}")


def _from_client_error(error: vendor.ClientError, uri: str, bucket_uri: str) -> PipelineError:
    code, status = code_of(error), status_of(error)
    if code == "NoSuchBucket":
        return NotFound(bucket_uri)
    if code != "NoSuchUpload" and status == 404:
        return NotFound(uri)
    # A refusal's message may repeat the access key's id, so only its code is shown.
    if code in _REFUSED_CODES:
        return CredentialsRefused(uri, f"{error.operation_name}: {code}")
    if code in ("AccessDenied", "400") or status in (401, 403):  # a bare 400 is a HEAD's: an expired token, mostly
        return AccessDenied(uri, f"{error.operation_name}: {code}")
    message = without_secrets(str(error.response.get("Error", {}).get("Message", "")))
    if code == "KeyTooLongError" or (status == 400 and {"", ".", ".."} & set(uri.removeprefix(f"{bucket_uri}/").split("/"))):
        return InvalidKey(bucket_uri, uri.removeprefix(f"{bucket_uri}/"), message)
    return StoreUnavailable(uri, f"{error.operation_name}: {code} {status} {message}".strip())


def code_of(error: vendor.ClientError) -> str:
    """Return the code that a server gave for a refusal; empty where it gave none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: vendor.ClientError) -> int:
    """Return the HTTP status of a refusal; 0 where there is none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
