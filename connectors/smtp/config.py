"""What an operator says about a mail server.

It often stands on this machine or in this network, so private addresses are as good as any here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr, field_validator, model_validator

from connectors.config import ConnectorConfig, setting
from connectors.message import sendable, split_sender


class SmtpConfig(ConnectorConfig):
    """How to reach the server, and who writes."""

    host: str = setting(title="Server", pattern=r"^[^\s/@]+$", example="smtp.acme.example", group="Server")
    port: int = setting(
        587, title="Port", help="587 for starttls; 465 if security is tls.", ge=1, le=65535, group="Server"
    )
    security: Literal["starttls", "tls", "none"] = setting(
        "starttls",
        title="Security",
        help="none sends in clear: only for a relay on this machine or in a network you trust.",
        group="Server",
    )
    username: str = setting("", title="User name", group="Server")
    password: SecretStr | None = setting(None, title="Password", group="Server")
    sender: str = setting(
        title="Sender", help="The address surveys come from.", example="surveys@acme.example", group="Sender"
    )
    sender_name: str = setting("", title="Sender's name", help="Used where a campaign names none.", group="Sender")
    reply_to: str = setting("", title="Replies to", help="Used where a campaign names none.", group="Sender")
    per_second: float | None = setting(
        None, title="Messages per second", help="Empty: as fast as the server takes them.", gt=0, group="Pace"
    )
    per_connection: int = setting(
        100, title="Messages per connection", help="A new connection after so many.", ge=1, group="Pace"
    )
    timeout_seconds: float = setting(20.0, title="Time-out in seconds", ge=0.1, le=25, group="Server")
    ca_file: Path | None = setting(
        None,
        title="Certificate authority",
        help="PEM file, for servers with a certificate of your own.",
        group="Server",
    )
    hello_name: str = setting(
        "",
        title="Our name",
        help="Said in EHLO; empty: the name of this machine, or the sender's domain.",
        pattern=r"^[A-Za-z0-9.:\[\]-]*$",
        group="Server",
    )

    @model_validator(mode="before")
    @classmethod
    def _split(cls, values: Any) -> Any:
        """`Acme <surveys@acme.example>` is a sender with its name; implicit TLS has a port of its own."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("security") == "tls":
            values.setdefault("port", 465)
        return split_sender(values)

    @field_validator("sender")
    @classmethod
    def _sendable(cls, sender: str) -> str:
        return sendable(sender)

    @field_validator("reply_to")
    @classmethod
    def _repliable(cls, reply_to: str) -> str:
        return sendable(reply_to) if reply_to else ""

    @model_validator(mode="after")
    def _both_or_none(self) -> SmtpConfig:
        if bool(self.username) != bool(self.password and self.password.get_secret_value()):
            raise ValueError("username and password belong together: give both or neither")
        return self
