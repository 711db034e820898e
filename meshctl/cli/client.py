"""The control plane as commands see it: :class:`chaos.client.Api` with errors that carry exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from chaos.client import Api, ApiConfig
from chaos.errors import ApiError, ApiUnreachable, ChaosError, DeadlineExceeded, ExperimentError
from meshctl.cli.options import connection_settings
from meshctl.errors import MeshctlError


class ServerUnreachable(MeshctlError):
    """Nobody answers at ``--server``."""

    exit_code = 69


class RequestRefused(MeshctlError):
    """The control plane answered with an error that the user can do something about."""

    exit_code = 2


class CommandTimeout(MeshctlError):
    """A deadline passed."""

    exit_code = 124


def api() -> Api:
    """The API that the options of the current command point to."""
    settings = connection_settings(click.get_current_context())
    with translated():
        return Api(ApiConfig(settings.server, settings.token_file, settings.timeout))


@contextmanager
def translated() -> Iterator[None]:
    """Turn the chaos library's errors into errors of the command line."""
    try:
        yield
    except ChaosError as error:
        raise _translate(error) from error


def _translate(error: ChaosError) -> MeshctlError:
    if isinstance(error, ApiUnreachable):
        return ServerUnreachable(f"{error}; start it with `meshctl serve -f mesh.yaml`, or set --server or MESHCTL_SERVER")
    if isinstance(error, DeadlineExceeded):
        return CommandTimeout(str(error))
    if isinstance(error, ApiError):
        return _refusal(error)
    if isinstance(error, ExperimentError):
        return RequestRefused(str(error))
    return MeshctlError(str(error))


def _refusal(error: ApiError) -> MeshctlError:
    if error.status == 401:
        return RequestRefused(f"{error}; point --token-file or MESHCTL_TOKEN_FILE to <state_dir>/api-token of the server")
    if error.status == 503:
        return ServerUnreachable(f"{error}; the control plane is starting or stopping: try again")
    return RequestRefused(str(error)) if error.status < 500 else MeshctlError(str(error))
