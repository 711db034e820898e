"""The control plane as commands see it: :class:`chaos.client.Api` with errors that carry exit codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click

from chaos.client import Api, ApiConfig, Json, segment
from chaos.errors import ApiError, ChaosError, DeadlineError, ExperimentError, UnreachableError
from meshctl import errors
from meshctl.cli.options import connection_settings


def api() -> Api:
    """The API that the options of the current command point to."""
    settings = connection_settings(click.get_current_context())
    with translated():
        return Api(ApiConfig(settings.server, settings.token_file, settings.timeout))


def get(path: str, **query: object) -> Json:
    """GET from the control plane of the current command."""
    with translated():
        return api().get(path, **query)


def post(path: str, body: Mapping[str, object]) -> Json:
    """POST to the control plane of the current command."""
    with translated():
        return api().post(path, body)


@contextmanager
def translated() -> Iterator[None]:
    """Turn the chaos library's errors into errors of the application."""
    try:
        yield
    except ChaosError as error:
        raise _translate(error) from error


def _translate(error: ChaosError) -> errors.MeshctlError:
    if isinstance(error, UnreachableError):
        remedy = "start it with `meshctl serve -f mesh.yaml`, or set --server or MESHCTL_SERVER"
        return errors.UnreachableError(f"{error}; {remedy}")
    if isinstance(error, DeadlineError):
        return errors.DeadlineError(str(error))
    if isinstance(error, ApiError):
        return _refusal(error)
    if isinstance(error, ExperimentError):
        return errors.UsageError(str(error))
    return errors.MeshctlError(str(error))


def _refusal(error: ApiError) -> errors.MeshctlError:
    if error.status == 401:
        remedy = "point --token-file or MESHCTL_TOKEN_FILE to <state_dir>/api-token of the server"
        return errors.UsageError(f"{error}; {remedy}")
    if error.status == 503:
        return errors.UnreachableError(f"{error}; the control plane is starting or stopping: try again")
    if error.status < 500:
        return errors.UsageError(str(error))
    return errors.ApiError(str(error), status=error.status, code=error.code)


__all__ = ["api", "get", "post", "segment", "translated"]
