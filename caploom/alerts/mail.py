"""Alerts by mail."""

import smtplib
import ssl
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from caploom.alerts.alert import Alert, subject_of, text_of
from caploom.alerts.faults import ChannelFault, secret
from caploom.config.alerts import EmailSettings


def send(alerts: Sequence[Alert], settings: EmailSettings) -> None:
    """Send one mail about all alerts; raises `ChannelFault` unless the server accepts it for every recipient."""
    message = mail_of(alerts, settings)
    try:
        with smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_seconds) as server:
            if settings.starttls:
                server.starttls(context=ssl.create_default_context())
            if settings.user_from_env is not None and settings.password_from_env is not None:
                server.login(secret(settings.user_from_env), secret(settings.password_from_env))
            server.send_message(message)  # a retry will not reach a recipient who is refused while others are accepted
    except smtplib.SMTPAuthenticationError as error:
        raise ChannelFault(f"The mail server refused the user's name or password ({error.smtp_code}).") from None
    except smtplib.SMTPResponseException as error:
        raise ChannelFault(f"The mail server refused the mail ({error.smtp_code}).", passing=True) from None
    except smtplib.SMTPNotSupportedError:
        raise ChannelFault("The mail server offers no STARTTLS, or no login: see `starttls`.") from None
    except smtplib.SMTPRecipientsRefused:
        raise ChannelFault("The mail server refused every recipient: correct `to`.") from None
    except ssl.SSLCertVerificationError:
        raise ChannelFault(
            f"The mail server's certificate is not {settings.host}'s, or no trusted authority signed it."
        ) from None
    except (OSError, smtplib.SMTPException) as error:
        raise ChannelFault(f"The mail server cannot be reached ({type(error).__name__}).", passing=True) from None


def mail_of(alerts: Sequence[Alert], settings: EmailSettings) -> EmailMessage:
    """The mail: plain text, with a subject of one line, which cannot inject another header."""
    message = EmailMessage()
    message["Subject"] = subject_of(alerts)
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.to)
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=settings.sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # so that no holiday notice answers
    message.set_content(f"{text_of(alerts)}\n")
    return message
