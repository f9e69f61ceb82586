# Both programs, static, on nothing: some 24 MB, no shell, no libraries, not root.
#
#   docker build -t liveedgecast .
#
# BUILD_IMAGE is any image that has cargo, a C compiler and CA certificates for glibc; a site without a registry imports a root of its own.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
ENV CARGO_TERM_COLOR=never
COPY tools/static.sh tools/
# Dependencies first, with empty crates around them, so that a change of ours does not compile them again.
COPY Cargo.toml Cargo.lock ./
COPY activator/Cargo.toml activator/
COPY worker/Cargo.toml worker/
COPY common/Cargo.toml common/
COPY e2e/Cargo.toml e2e/
RUN set -eu; \
    for crate in activator worker common e2e; do mkdir "$crate/src"; echo '//! Empty.' > "$crate/src/lib.rs"; done; \
    for main in activator/src/main.rs worker/src/main.rs activator/build.rs common/build.rs; do printf '//! Empty.\nfn main() {}\n' > "$main"; done; \
    tools/static.sh cargo build --release --locked -p liveedgecast-activator -p liveedgecast-worker
COPY common common
COPY activator activator
COPY worker worker
# Sources keep the time of their last change, which may be before the empty ones were built.
RUN set -eu; \
    find activator worker common -name '*.rs' -exec touch {} +; \
    tools/static.sh cargo build --release --locked -p liveedgecast-activator -p liveedgecast-worker --bins; \
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
