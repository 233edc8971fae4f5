# dinoserve for the CPU. Builds with the classic builder and with BuildKit.
#
#   docker build -t dinoserve .
#   docker run --rm -p 8080:8080 dinoserve
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates cmake gcc g++ make nasm python3 python3-pip \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY deploy/setup.py deploy/setup.py
ENV DINOSERVE_HOME=/var/lib/dinoserve
RUN python3 deploy/setup.py
COPY Cargo.toml Cargo.lock ./
COPY loadtest/Cargo.toml loadtest/Cargo.toml
COPY models models
COPY src src
# Targets that are named in a Cargo.toml must be there, though they are not built.
RUN mkdir -p tests loadtest/src loadtest/micro \
 && touch tests/suite.rs loadtest/src/main.rs loadtest/micro/main.rs \
 && cargo build --locked --profile dist
# The embedded model is converted here, so that a container needs no writable folder; its source is not shipped.
RUN target/dist/dinoserve models pull dinov2-small-focus \
 && rm -rf /var/lib/dinoserve/sources /var/lib/dinoserve/tools \
 && install -D target/dist/dinoserve /root-of-image/usr/local/bin/dinoserve \
 && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /root-of-image/etc/ssl/certs/ca-certificates.crt

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="dinoserve" \
      org.opencontainers.image.description="DINOv2 image features over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY LICENSE NOTICE /usr/share/doc/dinoserve/
COPY --from=build /root-of-image /
# Owned by the user, so that a volume mounted here can take other models. The command also parts the two copies, which the
# classic builder cannot always tell apart.
RUN install -d -o 65532 -g 65532 /var/lib/dinoserve
COPY --from=build --chown=65532:65532 /var/lib/dinoserve /var/lib/dinoserve
USER 65532:65532
ENV DINOSERVE_HOME=/var/lib/dinoserve \
    DINOSERVE_HOST=0.0.0.0 \
    DINOSERVE_MODEL=dinov2-small-focus
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/dinoserve"]
CMD ["serve"]
