# Triton for CPUs out of NVIDIA's wheel. In the repository's root:
#   docker build -f images/triton.Dockerfile -t edgefolio/triton:0.1.0 .
# Build it for yourself, do not publish it (README.md beside this file); NVIDIA's own image is what runs in production.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

# A read-only root cannot keep what Python compiles, and images come without it: it is done once, here.
FROM ${PYTHON_IMAGE} AS base
RUN echo edgefolio:x:65532:65532::/tmp:/sbin/nologin >>/etc/passwd && echo edgefolio:x:65532: >>/etc/group && \
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
      -x '/(test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip|pydoc_data|site-packages|dist-packages)/' \
      "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"

# What these stages make is kept as long as what they copy stays the same: the packages, while only code changes.
FROM base AS tools
COPY images/install.py constraints.txt /build/
RUN --mount=type=bind,source=images/wheels,target=/wheels python3 /build/install.py tools

FROM base AS requirements
COPY images/install.py pyproject.toml /build/
RUN python3 /build/install.py requirements triton >/requirements.txt

FROM tools AS packages
COPY --from=requirements /requirements.txt /
RUN --mount=type=bind,source=images/wheels,target=/wheels python3 /build/install.py packages

FROM tools AS triton
RUN --mount=type=bind,source=images/wheels,target=/wheels python3 /build/install.py triton

FROM base AS backend
COPY edge/edgefolio_edge/triton/backend /opt/tritonserver/backends/onnxruntime
COPY edge/edgefolio_edge/triton/backend edge/edgefolio_edge/triton/split_backend /opt/tritonserver/backends/edgefolio/
COPY edge/edgefolio_worker /opt/tritonserver/backends/edgefolio/edgefolio_worker
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /opt/tritonserver

FROM base
ARG VERSION=0.1.0
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="edgefolio-triton" \
      org.opencontainers.image.description="Triton for CPUs with a Python-based onnxruntime backend; to be built, not published" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-third-party-binaries"
# The first python3 is where the backend finds numpy and ONNX Runtime, which would report to its maker.
ENV PATH=/opt/tritonserver/bin:/opt/edgefolio/bin:$PATH LD_LIBRARY_PATH=/opt/tritonserver/lib \
    OPENBLAS_NUM_THREADS=1 ORT_DISABLE_TELEMETRY=1 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["tritonserver"]
CMD ["--help"]
COPY --from=packages /opt/edgefolio /opt/edgefolio
COPY --from=triton /opt/tritonserver /opt/tritonserver
COPY --from=backend /opt/tritonserver /opt/tritonserver
