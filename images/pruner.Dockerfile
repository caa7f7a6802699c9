# The making of portfolios. In the repository's root: docker build -f images/pruner.Dockerfile -t edgefolio-pruner .
# LIBRARIES=mounted leaves the large libraries (torch and what it needs) out: they are then found in a volume at
# /opt/libraries, where `pip install --target` put the packages of the extra "pruner".
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

# A read-only root cannot keep what Python compiles, and images come without it: it is done once, here.
FROM ${PYTHON_IMAGE} AS base
RUN echo edgefolio:x:65532:65532::/tmp:/sbin/nologin >>/etc/passwd && echo edgefolio:x:65532: >>/etc/group && \
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
      -x '/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|pydoc_data|site-packages|dist-packages)/' \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

FROM base AS packages
ARG LIBRARIES=included
ARG TORCH_INDEX_URL=""
COPY images/install.py pyproject.toml constraints.txt /build/
RUN --mount=type=bind,source=images/wheels,target=/wheels \
    TORCH_INDEX_URL=${TORCH_INDEX_URL} python3 /build/install.py pruner ${LIBRARIES}

FROM base AS project
COPY images/install.py pyproject.toml constraints.txt README.md /build/
COPY portfolio /build/portfolio
COPY pruner_job /build/pruner_job
RUN --mount=type=bind,source=images/wheels,target=/wheels python3 /build/install.py project

FROM base
COPY --from=packages /opt/edgefolio /opt/edgefolio
COPY --from=project /opt/edgefolio /opt/edgefolio
ENV PATH=/opt/edgefolio/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["edgefolio"]
CMD ["--help"]
ARG VERSION=0.1.0
ARG SOURCE=""
LABEL org.opencontainers.image.title="edgefolio-pruner" \
      org.opencontainers.image.description="Edgefolio's pruner: makes the variants of a model and publishes them" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
