# The image of the control plane, the demo's services and the load. Envoys run from their own official image.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
# torch's CPU build; the default one of PyPI brings gigabytes of CUDA. Versions are those of constraints.txt.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/meshctl
COPY LICENSE README.md constraints.txt pyproject.toml ./
COPY chaos chaos
COPY envoy-configs envoy-configs
COPY forecasting forecasting
COPY meshctl meshctl
COPY xds xds
RUN /opt/meshctl/bin/pip install --no-cache-dir --disable-pip-version-check --extra-index-url "$TORCH_INDEX" -c constraints.txt .

FROM python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 meshctl \
    && useradd --uid 10001 --gid meshctl --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin meshctl \
    && install -d -o meshctl -g meshctl -m 0700 /var/lib/meshctl
COPY --from=build /opt/meshctl /opt/meshctl
# Nothing is written but to /var/lib/meshctl and /tmp, so containers may be read-only.
ENV PATH=/opt/meshctl/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp
USER meshctl
WORKDIR /var/lib/meshctl
CMD ["meshctl", "--help"]
