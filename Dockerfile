# Both programs, static, on nothing: some 24 MB, no shell, no libraries, not root.
#
#   docker build -t liveedgecast .
#
# BUILD_IMAGE is any image that has cargo, a C compiler and CA certificates for glibc; a site without a registry imports a root of its own.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# Static glibc: it resolves names by files and DNS without any plug-in. The target is named, or build scripts would be static too.
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_PROFILE_RELEASE_STRIP=symbols \
    CARGO_TERM_COLOR=never
# Dependencies first, with empty crates around them, so that a change of ours does not compile them again.
COPY Cargo.toml Cargo.lock ./
COPY activator/Cargo.toml activator/
COPY worker/Cargo.toml worker/
COPY common/Cargo.toml common/
COPY e2e/Cargo.toml e2e/
RUN set -eu; \
    for crate in activator worker common e2e; do mkdir "$crate/src"; echo '//! Empty.' > "$crate/src/lib.rs"; done; \
    for main in activator/src/main.rs worker/src/main.rs activator/build.rs common/build.rs; do printf '//! Empty.\nfn main() {}\n' > "$main"; done; \
    cargo build --release --locked --target "$(uname -m)-unknown-linux-gnu" -p liveedgecast-activator -p liveedgecast-worker
COPY common common
COPY activator activator
COPY worker worker
# Sources keep the time of their last change, which may be before the empty ones were built.
RUN set -eu; \
    find activator worker common -name '*.rs' -exec touch {} +; \
    target="$(uname -m)-unknown-linux-gnu"; \
    cargo build --release --locked --target "$target" -p liveedgecast-activator -p liveedgecast-worker --bins; \
    mkdir /image; \
    cp "target/$target/release/liveedgecast-activator" "target/$target/release/liveedgecast-worker" /image/

FROM scratch
LABEL org.opencontainers.image.title="LiveEdgeCast" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /image/ /
USER 65532:65532
EXPOSE 1935 8080
ENTRYPOINT ["/liveedgecast-activator"]
