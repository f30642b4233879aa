ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-trixie@sha256:e14e87345b4d5964ddcc3491d27ee046a0f23820f340c3c1e24da6880141f7c0
ARG DISTROLESS_STATIC_IMAGE=gcr.io/distroless/static-debian13:nonroot@sha256:e2e927ec666bae08560abb3c55d0659eceabb657f56b6782ab500a9fc7f555e3

FROM ${RUST_IMAGE} AS tools
WORKDIR /src
RUN <<'EOF'
set -eu
if command -v apt-get && ! command -v musl-gcc; then
    apt-get update
    apt-get install --yes --no-install-recommends musl-tools
fi
EOF
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo install --locked --debug --config profile.dev.debug=false cargo-chef@0.1.78 cargo-auditable@0.7.7

FROM tools AS plan
COPY . .
ARG PACKAGE="" BIN="" EXAMPLE=""
RUN <<'EOF'
set -eu
mkdir /plan
cargo chef prepare --recipe-path /plan/recipe.json
selection=${PACKAGE:+--package=$PACKAGE}
if [ -z "$BIN$EXAMPLE" ]; then
    answer=$(cargo build $selection --bin 2>&1) || true
    set -- $(echo "$answer" | sed -n 's/^    //p')
    if [ $# = 1 ]; then
        BIN=$1
    elif [ $# = 0 ] && [ -z "$PACKAGE" ] && [ -f examples/service.rs ]; then
        EXAMPLE=service
    else
        echo "$answer"
        exit 1
    fi
fi
echo "$selection ${BIN:+--bin=$BIN} ${EXAMPLE:+--example=$EXAMPLE}" >/plan/selection
echo "${EXAMPLE:+examples/$EXAMPLE}$BIN" >/plan/artifact
EOF

FROM tools AS build-amd64
ENV CARGO_BUILD_TARGET=x86_64-unknown-linux-musl
FROM tools AS build-arm64
ENV CARGO_BUILD_TARGET=aarch64-unknown-linux-musl

FROM build-${TARGETARCH} AS build
ENV CARGO_TARGET_DIR=/target
COPY --from=plan /plan /plan
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked <<'EOF'
set -eu
cargo chef cook --no-build --recipe-path /plan/recipe.json
if command -v rustup; then rustup target add "$CARGO_BUILD_TARGET"; fi
cargo build --release --locked $(cat /plan/selection)
EOF
COPY . .
ARG VERSION GIT_COMMIT BUILD_DATE
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked <<'EOF'
set -eu
find . -type f -exec touch {} +
cargo auditable build --release --locked $(cat /plan/selection)
install -D -m 0555 "$CARGO_TARGET_DIR/$CARGO_BUILD_TARGET/release/$(cat /plan/artifact)" /out/app
test -n "$(/out/app version)"
EOF

FROM ${DISTROLESS_STATIC_IMAGE} AS distroless-static
COPY --link --from=build /out/app /app
EXPOSE 8080
USER 65532:65532
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --start-interval=1s --retries=3 CMD ["/app", "healthcheck"]
ENTRYPOINT ["/app"]
