"""Where a TensorFlow Serving server is, and how it can fail to answer; `remote_grpc` and `remote_rest` talk to it."""

import dataclasses
import re

from jpegsr.errors import UserError

# A name or an IPv4 address, or an IPv6 address in brackets.
_HOST = re.compile(r"[\w-]+(\.[\w-]+)*\.?|\[[0-9a-fA-F:.]+(%\w+)?\]", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Server:
    """A model on a server; `UserError` for values that make no sense.

    Attributes:
      address: HOST:PORT.
      model_name: as configured there.
      version: of the model; by default the newest.
      label: a version's name, instead of its number.
      deadline: seconds that a request may take.
      tls: whether the connection is encrypted; the server's certificate must be signed by an authority that is known here.
    """

    address: str
    model_name: str = "jpegsr"
    version: int | None = None
    label: str | None = None
    deadline: float = 300.0
    tls: bool = False

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        is_port = port.isascii() and port.isdecimal() and 0 < int(port) < 65536
        if not _HOST.fullmatch(host) or not is_port:
            raise UserError(f"--server={self.address} is not HOST:PORT")
        if self.version is not None and self.label is not None:
            raise UserError("--model_version and --version_label say the same thing: give one of them")
        if self.version is not None and self.version < 0:
            raise UserError(f"--model_version={self.version} is below zero")
        if not 0 < self.deadline < 1e6:
            raise UserError(f"--deadline={self.deadline:g} is not a number of seconds above zero")

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


class UnavailableError(Exception):
    """No answer, for a reason that may pass: the server is not there, restarts, or has too much to do."""


class DeadlineError(Exception):
    """No answer in time."""


class RefusedError(UserError):
    """The server will not carry out a request, however often it is sent; `status` is what the protocol calls that."""

    def __init__(self, message: str, status: str):
        super().__init__(message)
        self.status = status


def refusal(status: str, reason: str) -> RefusedError:
    """The error for a request that is refused.

    Args:
      status: what the protocol calls it ("INVALID_ARGUMENT", "HTTP 400").
      reason: the server's words, of which the first line without names of graph nodes is kept.
    """
    lines = (re.sub(r"\{\{.*?\}\}|assertion failed: ", "", line).strip(" []") for line in reason.splitlines())
    return RefusedError(f"the server says {status}: {next((line for line in lines if line), 'no reason')}", status)
