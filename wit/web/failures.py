"""What goes wrong in a request, in the words of `wit.outcomes`."""

import errno
import os
import ssl

import aiohttp
from aiohttp import http_exceptions

from wit.errors import UserError

OUT_OF_SOCKETS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# OpenSSL's verification errors (x509_vfy.h).
NOT_IN_TIME = (9, 10, 13, 14)
NOT_OF_THE_NAME = (62, 64)


class Failed(Exception):
    """Ends a request with an outcome."""

    def __init__(self, outcome: str, message: str | None = None):
        super().__init__(outcome)
        self.outcome = outcome
        self.message = message


def explain(error: Exception, status: int | None) -> tuple[str, str | None]:
    """Outcome and message for what aiohttp and the system raise.

    `status` is HTTP's, None where no answer's head came. Messages hold no addresses, ports or
    times: the same failure reads the same in every run. Raises UserError where the fault is this
    machine's.
    """
    number = getattr(error, "errno", None)
    if number in OUT_OF_SOCKETS:
        raise UserError(
            f"{os.strerror(number)}: the system gives no more sockets; raise `ulimit -n` or lower "
            "the number of requests at once"
        ) from error
    match error:
        case aiohttp.ConnectionTimeoutError():
            return "connect_timeout", None
        case aiohttp.ServerTimeoutError():
            return ("first_byte_timeout" if status is None else "read_timeout"), None
        case TimeoutError():
            return "total_timeout", None
        case aiohttp.ClientConnectorCertificateError():
            return _certificate(error.certificate_error)
        case ssl.SSLCertVerificationError():
            return _certificate(error)
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "tls_failure", getattr(error.__cause__, "reason", None)
        case aiohttp.ClientConnectorError() if number == errno.EPERM:
            return "forbidden_address", "not a globally reachable address"
        case aiohttp.ClientConnectorError() if number == errno.ETIMEDOUT:
            return "connect_timeout", None
        case aiohttp.ClientConnectorError():
            return "connect_failed", os.strerror(number) if number else None
        case aiohttp.ClientPayloadError():
            broken = isinstance(error.__cause__, http_exceptions.TransferEncodingError)
            return ("invalid_response" if broken else "truncated_body"), None
        case aiohttp.ClientResponseError():
            if error.message.startswith(("Got more than", "Too many headers")):
                return "headers_too_large", None
            return "invalid_response", None
        case aiohttp.ClientConnectionError() | ConnectionError():
            return "connection_lost", None
    return "internal_error", f"{type(error).__name__}: {error}"[:200]


def _certificate(error: Exception) -> tuple[str, str | None]:
    code = getattr(error, "verify_code", None)
    message = getattr(error, "verify_message", None)
    if code in NOT_OF_THE_NAME or code is None:  # aiohttp's own comparison has no code
        return "certificate_mismatch", message or "the certificate does not fit the name"
    return ("certificate_expired" if code in NOT_IN_TIME else "certificate_untrusted"), message
