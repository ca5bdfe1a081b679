# Three images: operator, bridge (the sidecar), api. `make image-files` first: it collects what is copied here.
#   buildah bud --target bridge --build-arg BASE_IMAGE=python:3.11-slim-bookworm --platform linux/amd64,linux/arm64 .
# One command runs during the build: it compiles Python's standard library. BuildKit runs it on the building machine's
# platform, whatever the target; a builder that does not set BUILDPLATFORM (buildah before 1.29) runs it on the target's.
# Each package keeps its metadata (*.dist-info) in /opt/polypod, where SBOM tools find it.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM --platform=${BUILDPLATFORM} ${BASE_IMAGE} AS bytecode
USER 0:0
COPY images/compile_stdlib.py /compile_stdlib.py
RUN ["python3", "/compile_stdlib.py", "/bytecode"]

FROM ${BASE_IMAGE} AS base
COPY --from=bytecode /bytecode /
ENV PYTHONPATH=/opt/polypod PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
LABEL org.opencontainers.image.licenses=Apache-2.0

FROM base AS bridge
ARG TARGETARCH=amd64
COPY launcher/dist/polypod-launcher-${TARGETARCH} /usr/local/bin/polypod-launcher
COPY build/image/${TARGETARCH}/bridge /opt/polypod
# a SIGTERM that comes while Python boots is not lost
ENTRYPOINT ["/usr/local/bin/polypod-launcher", "hold", "python3", "-sP", "-W", "ignore", "-m", "polypod_bridge.main"]

FROM base AS operator
ARG TARGETARCH=amd64
COPY build/image/${TARGETARCH}/operator /opt/polypod
ENTRYPOINT ["python3", "-sP", "-W", "ignore", "-m", "polypod_operator.main"]

FROM base AS api
ARG TARGETARCH=amd64
COPY build/image/${TARGETARCH}/api /opt/polypod
ENTRYPOINT ["python3", "-sP", "-W", "ignore", "-m", "polypod_execution_api.main"]
