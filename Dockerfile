# The image of any binary crate or workspace, unedited:
#
#   docker build --build-arg PACKAGE=… --build-arg BIN=… \
#     --build-arg VERSION="$(git describe --tags --always --dirty)" \
#     --build-arg GIT_COMMIT="$(git rev-parse HEAD)" \
#     --build-arg BUILD_DATE="$(git log -1 --format=%cI)" .
#
# | argument                         | default                                                    |
# |----------------------------------|------------------------------------------------------------|
# | PACKAGE                          | the package in the root, else any of the workspace         |
# | BIN, EXAMPLE                     | the only binary; where there is none, examples/service.rs  |
# | VERSION, GIT_COMMIT, BUILD_DATE  | unknown; they become labels, and the binary's own metadata |
#
# Path dependencies have to be members of the workspace: an empty [workspace] in the root's Cargo.toml makes them so.
#
# There is no `# syntax=` line: the frontend in Docker 25 knows all of this, another would be one more image to trust.

ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-trixie@sha256:e14e87345b4d5964ddcc3491d27ee046a0f23820f340c3c1e24da6880141f7c0
ARG DISTROLESS_STATIC_IMAGE=gcr.io/distroless/static-debian13:nonroot@sha256:e2e927ec666bae08560abb3c55d0659eceabb657f56b6782ab500a9fc7f555e3


FROM ${RUST_IMAGE} AS tools
WORKDIR /src
# For dependencies written in C.
RUN <<EOF
set -eu
if command -v apt-get && ! command -v musl-gcc; then
    apt-get update
    apt-get install --yes --no-install-recommends musl-tools
    rm -r /var/lib/apt/lists/*
fi
EOF

# A debug build, because these run for less time than optimizing them takes. The cache is locked by the builder, because
# cargo's own lock is in the folder above.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo install --locked --debug --config profile.dev.debug=false cargo-chef@0.1.78 cargo-auditable@0.7.7


# Settles what is built before anything is compiled: the recipe of the dependencies, cargo's arguments for the
# executable, and where below the target directory it will be. A change of code changes none of the three.
FROM tools AS plan
# A file, because BuildKit shows the whole of a RUN that fails, and the message would be lost in it.
COPY --chmod=0755 <<'EOF' /usr/local/bin/plan
#!/bin/sh -eu
fail() { echo "error: $1" >&2; exit 1; }

[ -f Cargo.lock ] || fail 'no Cargo.lock: commit it, and let .dockerignore pass it'
[ -z "$BIN" ] || [ -z "$EXAMPLE" ] || fail 'both --build-arg BIN and EXAMPLE: pass one of them'
mkdir /plan
cargo chef prepare --recipe-path /plan/recipe.json

# Left alone, cargo would take all default members.
package=${PACKAGE:-$(cargo pkgid 2>/dev/null | sed 's/.*#//; s/@.*//')}
arguments=${package:+--package=$package}
if [ -z "$BIN$EXAMPLE" ]; then
    # To a --bin without a name, cargo answers with the names.
    answer=$(cargo build $arguments --bin 2>&1) || true
    set -- $(echo "$answer" | sed -n 's/^    //p')
    if [ $# -eq 1 ]; then
        BIN=$1
    elif [ $# -gt 1 ]; then
        fail "several binaries: pass --build-arg BIN=…, one of: $*"
    elif [ -z "$PACKAGE" ] && [ -f examples/service.rs ]; then
        EXAMPLE=service
    else
        echo "$answer" | tail -n 1 >&2
        fail 'nothing to build: pass --build-arg PACKAGE=… of the package that has the binary, or EXAMPLE=…'
    fi
fi
echo "$arguments ${BIN:+--bin=$BIN}${EXAMPLE:+--example=$EXAMPLE}" >/plan/arguments
echo "${EXAMPLE:+examples/}$BIN$EXAMPLE" >/plan/executable
EOF

COPY . .
ARG PACKAGE="" BIN="" EXAMPLE=""
RUN plan


# musl, because it is linked statically: the base needs no libc.
FROM tools AS build-amd64
ENV CARGO_BUILD_TARGET=x86_64-unknown-linux-musl

FROM tools AS build-arm64
ENV CARGO_BUILD_TARGET=aarch64-unknown-linux-musl

FROM build-${TARGETARCH} AS build
WORKDIR /src
ENV CARGO_TARGET_DIR=/target
COPY --from=plan /plan /plan
# Stubs in the place of the code, and the very arguments of the build below: cargo then finds each dependency done.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked <<EOF
set -eu
cargo chef cook --no-build --recipe-path /plan/recipe.json
! command -v rustup || rustup target add "$CARGO_BUILD_TARGET"
xargs cargo build --release --locked </plan/arguments
EOF

COPY . .
# These differ with each commit, so nothing before them may see them.
ARG VERSION GIT_COMMIT BUILD_DATE
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked <<EOF
set -eu
# cargo compares times, and a file may be older than the stub that was compiled for it.
find . -type f -exec touch {} +
xargs cargo auditable build --release --locked </plan/arguments
install -D -m 0555 "$CARGO_TARGET_DIR/$CARGO_BUILD_TARGET/release/$(cat /plan/executable)" /out/app
# What does not start, or has as little to say as a stub, becomes no image.
version=$(timeout 10 /out/app version)
echo "${version:?printed nothing}"
EOF


FROM ${DISTROLESS_STATIC_IMAGE} AS distroless-static
# Not --link: Podman 5.4 refuses it.
COPY --from=build /out/app /app
# The base's own, /home/nonroot, is closed to any other user.
WORKDIR /
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --start-interval=1s --retries=3 CMD ["/app", "healthcheck"]
ENTRYPOINT ["/app"]
ARG PACKAGE BIN EXAMPLE VERSION GIT_COMMIT BUILD_DATE
LABEL org.opencontainers.image.title="${BIN:-${EXAMPLE:-${PACKAGE}}}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${GIT_COMMIT}" \
      org.opencontainers.image.created="${BUILD_DATE}"
