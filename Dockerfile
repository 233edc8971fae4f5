# dinoserve in a container. Builds with the classic builder and with BuildKit.
#
#   docker build -t dinoserve .
#   docker run --rm --read-only --cap-drop ALL -p 8080:8080 dinoserve
#
# RUNTIME        cpu, openvino, or cuda: ONNX Runtime for NVIDIA GPUs, which needs a BASE_IMAGE with
#                CUDA 13 and cuDNN 9
# DEVICE         auto, or openvino for a model that OpenVINO runs in fp32; bf16 needs no DEVICE
# MODEL          a name of `dinoserve models list` to pull and convert, or none for an image without
#                a model
# PRECISION      precision of that model: fp32, bf16 (with RUNTIME=openvino), int8 or fp16
# FEATURES       cargo features: heic decodes HEIC, or nothing for an image without libheif and libde265
# CARGO_PROFILE  dist, or release, which builds faster
# SOURCE, REVISION  source repository and commit, for the image's labels
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS program
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
        ca-certificates cmake gcc g++ libde265-dev make nasm pkg-config python3 python3-pip \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
ARG CARGO_PROFILE=dist
ARG FEATURES=heic
# Builds the dependencies first, for an empty program, so that a change of the source does not
# rebuild them. All targets named in a Cargo.toml must exist, although they are not built.
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
COPY loadtest/Cargo.toml loadtest/Cargo.toml
COPY train/Cargo.toml train/Cargo.toml
RUN mkdir -p src tests loadtest/src loadtest/micro train/src train/tests \
 && touch src/lib.rs tests/suite.rs loadtest/src/main.rs loadtest/micro/main.rs \
 && touch train/src/lib.rs train/src/main.rs train/tests/suite.rs \
 && echo 'fn main() {}' > src/main.rs \
 && cargo build --locked --profile ${CARGO_PROFILE} -p dinoserve --bin dinoserve \
        --features "${FEATURES}"
COPY models models
COPY src src
# Cargo compares times, and the files may be older than the empty program.
RUN touch src/lib.rs src/main.rs \
 && cargo build --locked --profile ${CARGO_PROFILE} -p dinoserve --bin dinoserve \
        --features "${FEATURES}" \
 && install -D -s target/${CARGO_PROFILE}/dinoserve /image/usr/local/bin/dinoserve \
 && case "${FEATURES}" in *heic*) cp -L --parents /usr/lib/*/libde265.so.0 /image ;; esac \
 && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt

# Arguments that differ between images follow the long build, which they share.
FROM program AS files
COPY deploy/setup.py deploy/setup.py
ENV DINOSERVE_HOME=/home-of-image
ARG RUNTIME=cpu
# Outside of the home folder, where a volume for models would hide it.
RUN python3 deploy/setup.py --no-model --runtime ${RUNTIME} \
 && mkdir -p /image/usr/local/lib \
 && mv ${DINOSERVE_HOME}/runtime/* /image/usr/local/lib/onnxruntime \
 && chmod 755 /image/usr/local/lib/onnxruntime
ARG MODEL=dinov2-small-focus
ARG PRECISION=fp32
ARG DEVICE=auto
# Converted at build time, so that a container needs no network and no writable folder. Source
# weights are not shipped.
RUN if [ ${MODEL} = dinov2-small-focus ]; then python3 deploy/setup.py --runtime none; fi \
 && if [ ${MODEL} != none ]; then \
        /image/usr/local/bin/dinoserve models pull ${MODEL} --precision ${PRECISION} \
            --device ${DEVICE}; \
    fi \
 && rm -rf ${DINOSERVE_HOME}/runtime ${DINOSERVE_HOME}/sources ${DINOSERVE_HOME}/tools \
 && install -d ${DINOSERVE_HOME}/gallery

FROM ${BASE_IMAGE}
COPY --from=files /image /
COPY LICENSE NOTICE /usr/share/doc/dinoserve/
# Owned by the user, so that volumes for models and galleries are writable.
COPY --from=files --chown=65532:65532 /home-of-image /var/lib/dinoserve
USER 65532:65532
ARG MODEL=dinov2-small-focus
ARG PRECISION=fp32
ARG DEVICE=auto
ENV DINOSERVE_HOME=/var/lib/dinoserve \
    DINOSERVE_HOST=0.0.0.0 \
    DINOSERVE_MODEL=${MODEL} \
    DINOSERVE_PRECISION=${PRECISION} \
    DINOSERVE_DEVICE=${DEVICE} \
    ORT_DYLIB_PATH=/usr/local/lib/onnxruntime/libonnxruntime.so
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/dinoserve", "health"]
ENTRYPOINT ["/usr/local/bin/dinoserve"]
CMD ["serve"]
ARG VERSION=0.1.0
ARG SOURCE
ARG REVISION
LABEL org.opencontainers.image.title="dinoserve" \
      org.opencontainers.image.description="DINO image features over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}"
