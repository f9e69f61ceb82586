# The image has both programs, linked statically, and CA certificates: some 32 MB, without a shell, without libraries, not as root.
#
#   docker build -t liveedgecast --build-arg BUILD_COMMIT="$(git rev-parse --short=12 HEAD)" .
#
# BUILD_IMAGE is any image that has cargo, a C compiler for glibc and CA certificates. A site without a registry imports a root file system
# of its own.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm

FROM ${BUILD_IMAGE} AS build
# Features beyond the default ones, such as liveedgecast-activator/otlp,liveedgecast-worker/otlp.
ARG FEATURES=
WORKDIR /src
ENV CARGO_TERM_COLOR=never CARGO_PROFILE_RELEASE_STRIP=symbols
COPY tools/static.sh tools/
# Dependencies are built first, with empty crates around them, so that a change of the sources does not compile them again.
COPY Cargo.toml Cargo.lock ./
COPY activator/Cargo.toml activator/
COPY worker/Cargo.toml worker/
COPY common/Cargo.toml common/
COPY e2e/Cargo.toml e2e/
RUN set -eu; \
    for crate in activator worker common e2e; do mkdir "$crate/src"; echo '//! Empty.' > "$crate/src/lib.rs"; done; \
    for main in activator/src/main.rs worker/src/main.rs activator/build.rs common/build.rs; do printf '//! Empty.\nfn main() {}\n' > "$main"; done; \
    tools/static.sh cargo build --release --locked --features "$FEATURES" -p liveedgecast-activator -p liveedgecast-worker
# The commit, which the programs name in --version and in the metric build_info.
ARG BUILD_COMMIT=unknown
COPY deploy/openapi.json deploy/
COPY common common
COPY activator activator
COPY worker worker
# COPY keeps a source's time of change, which may be before the empty crates were built; cargo would then not build it.
RUN set -eu; \
    find activator worker common -name '*.rs' -exec touch {} +; \
    tools/static.sh cargo build --release --locked --features "$FEATURES" -p liveedgecast-activator -p liveedgecast-worker --bins; \
    mkdir /image; \
    cp target/*-unknown-linux-gnu/release/liveedgecast-activator target/*-unknown-linux-gnu/release/liveedgecast-worker /image/

FROM scratch
LABEL org.opencontainers.image.title="LiveEdgeCast" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /image/ /
USER 65532:65532
EXPOSE 1935 8080
ENTRYPOINT ["/liveedgecast-activator"]
