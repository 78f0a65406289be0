"""TLS both ways, from PEM files: senders come to us by C-STORE, we go to the PACS by C-FIND (PS3.15 annex B)."""

from __future__ import annotations

import ssl

from tasks.domain.errors import WrongUse
from tasks.domain.settings import Settings


def to_us(settings: Settings) -> ssl.SSLContext | None:
    """None without a certificate. With a CA, senders show a certificate of it. Raises WrongUse."""
    if settings.dicom_tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _show(context, settings)
    if settings.dicom_tls_ca is not None:
        try:
            context.load_verify_locations(settings.dicom_tls_ca)
        except OSError:
            raise WrongUse("OSTEOFLOW_DICOM_TLS_CA cannot be read as a PEM file") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def to_the_pacs(settings: Settings) -> ssl.SSLContext | None:
    """None without the PACS's CA. Its certificate must be of that CA and name the host; ours, if there is one, is shown
    when it asks. Raises WrongUse."""
    if settings.dicom_query_tls_ca is None:
        return None
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(settings.dicom_query_tls_ca))
    except OSError:
        raise WrongUse("OSTEOFLOW_DICOM_QUERY_TLS_CA cannot be read as a PEM file") from None
    if settings.dicom_tls_cert is not None:
        _show(context, settings)
    return context


def _show(context: ssl.SSLContext, settings: Settings) -> None:
    assert settings.dicom_tls_cert is not None
    try:
        context.load_cert_chain(settings.dicom_tls_cert, settings.dicom_tls_key)
    except OSError:
        raise WrongUse("OSTEOFLOW_DICOM_TLS_CERT or _KEY cannot be read as PEM files") from None
