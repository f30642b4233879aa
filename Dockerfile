# check=skip=SecretsUsedInArgOrEnv
# (That check mistakes CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS for a secret.)
#
# Builds the image of a Rust service, from a package or from a member of a workspace:
#
#   docker build --build-arg BASE=… --build-arg PACKAGE=… --build-arg BIN=… .
#
# docs/image.md lists the arguments, and the Makefile sets those that git and Cargo.toml know. There is no `# syntax=`
# line, because the frontend of Docker 25 is enough, and another one would be one more image to trust.

# The base image. A static binary with musl is built for scratch, distroless-static and alpine, and a binary that links
# glibc for distroless-cc and debian-slim.
ARG BASE=distroless-static

# The images are pinned by digest, because tags move. Renovate updates the digests, and docs/bases.md says how to verify
# them.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-trixie@sha256:e14e87345b4d5964ddcc3491d27ee046a0f23820f340c3c1e24da6880141f7c0
ARG DISTROLESS_STATIC_IMAGE=gcr.io/distroless/static-debian13:nonroot@sha256:e2e927ec666bae08560abb3c55d0659eceabb657f56b6782ab500a9fc7f555e3
ARG ALPINE_IMAGE=docker.io/library/alpine:3.23@sha256:fd791d74b68913cbb027c6546007b3f0d3bc45125f797758156952bc2d6daf40
ARG DISTROLESS_CC_IMAGE=gcr.io/distroless/cc-debian13:nonroot@sha256:e792ab3d241a468a4fd7519ddbbebe66b49b5f365771716ea688ad40b6c6f1c2
ARG DEBIAN_SLIM_IMAGE=docker.io/library/debian:trixie-slim@sha256:020c0d20b9880058cbe785a9db107156c3c75c2ac944a6aa7ab59f2add76a7bd

# The possible bases. BuildKit pulls only the one that BASE names.
FROM scratch AS base-scratch
LABEL org.opencontainers.image.base.name=scratch
FROM ${DISTROLESS_STATIC_IMAGE} AS base-distroless-static
ARG DISTROLESS_STATIC_IMAGE
LABEL org.opencontainers.image.base.name=${DISTROLESS_STATIC_IMAGE}
FROM ${ALPINE_IMAGE} AS base-alpine
ARG ALPINE_IMAGE
LABEL org.opencontainers.image.base.name=${ALPINE_IMAGE}
FROM ${DISTROLESS_CC_IMAGE} AS base-distroless-cc
ARG DISTROLESS_CC_IMAGE
LABEL org.opencontainers.image.base.name=${DISTROLESS_CC_IMAGE}
FROM ${DEBIAN_SLIM_IMAGE} AS base-debian-slim
ARG DEBIAN_SLIM_IMAGE
LABEL org.opencontainers.image.base.name=${DEBIAN_SLIM_IMAGE}
# hadolint ignore=DL3006
FROM base-${BASE} AS base

# The tools run on the builder's own architecture and cross-compile, because emulation is many times slower. The C
# compilers for both architectures, with glibc and with musl, are for dependencies that contain C.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS tools
WORKDIR /src
RUN <<EOF
set -eu
# Builders without a network set RUST_IMAGE to an image of this stage, which has the tools already.
if command -v cargo-auditable; then exit; fi
dpkg --add-architecture amd64
dpkg --add-architecture arm64
apt-get update
apt-get install --yes --no-install-recommends cargo-auditable \
    gcc-x86-64-linux-gnu libc6-dev:amd64 musl-dev:amd64 gcc-aarch64-linux-gnu libc6-dev:arm64 musl-dev:arm64
rm -r /var/lib/apt/lists/*
EOF

# The cache mount keeps downloads for the next build. Parallel builds share the cache, and the links make them share
# cargo's locks too. This is a debug build, because optimizing cargo-chef takes longer than running it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    ln -sf registry/.package-cache registry/.package-cache-mutate /usr/local/cargo && \
    cargo install --locked --debug --config profile.dev.debug=false cargo-chef@0.1.78

# The plan: cargo-chef's recipe of the dependencies, cargo's arguments, and the path of the binary. When only code
# changes, these files stay the same, so the layers that are built from them stay cached.
FROM tools AS plan
# The script is a file, because BuildKit prints the whole text of a RUN that fails, and the error message would be lost
# in it.
COPY --chmod=0755 <<'EOF' /usr/local/bin/plan
#!/bin/sh -eu
fail() { echo "error: $1" >&2; exit 1; }
[ -f Cargo.lock ] || fail 'no Cargo.lock: commit it, and let .dockerignore pass it'
set -- $BIN $EXAMPLE
# Without a name, --bin makes cargo list the binaries.
[ $# -gt 0 ] || set -- $(cargo build ${PACKAGE:+--package=$PACKAGE} --bin 2>&1 | sed -n 's/^    //p')
[ $# -eq 1 ] || fail "pass --build-arg BIN=…, PACKAGE=… or EXAMPLE=… to choose one binary; found: ${*:-none}"
mkdir /plan
cargo chef prepare --recipe-path /plan/recipe.json
[ -n "$EXAMPLE" ] && kind=example || kind=bin
echo "--$kind=$1 ${PACKAGE:+--package=$PACKAGE} ${FEATURES:+--features=$FEATURES}" >/plan/arguments
echo "${EXAMPLE:+examples/}$1" >/plan/executable
EOF

COPY . .
ARG PACKAGE="" BIN="" EXAMPLE="" FEATURES=""
RUN plan
ARG BASE TARGETARCH
RUN <<EOF
set -eu
case $TARGETARCH in amd64) cpu=x86_64 ;; arm64) cpu=aarch64 ;; esac
case $BASE in distroless-cc | debian-slim) libc=gnu ;; *) libc=musl ;; esac
echo "$cpu-unknown-linux-$libc" >/plan/target
EOF

# The build: first the dependencies, then the code, and then one start of the binary.
FROM tools AS build
# musl-gcc compiles C for musl, because the compilers that link it have glibc's headers. With the last variable,
# cargo reads the token of a private registry from a file.
ENV CARGO_TARGET_DIR=/target \
    CC_x86_64_unknown_linux_musl=x86_64-linux-musl-gcc \
    CC_aarch64_unknown_linux_musl=aarch64-linux-musl-gcc \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=x86_64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS=cargo:token
ARG BUILD_PACKAGES=""
RUN if [ -n "$BUILD_PACKAGES" ]; then apt-get update && \
    apt-get install --yes --no-install-recommends $BUILD_PACKAGES && rm -r /var/lib/apt/lists/*; fi

# Compiles, and if that fails, ends the output with the cure of a common cause.
COPY --chmod=0755 <<'EOF' /usr/local/bin/compile
#!/bin/sh -eu
{ xargs cargo "$@" --release --locked --target "$(cat /plan/target)" </plan/arguments 2>&1 || touch /tmp/failed; } |
    tee /tmp/log
[ -e /tmp/failed ] || exit 0
cure() { if grep -q "$1" /tmp/log; then echo "error: $2" >&2; exit 1; fi; }
cure "couldn't read" 'a file is not in the build context: append it to .dockerignore, after a `!`'
cure 'directory of OpenSSL' 'OpenSSL is missing: pass BASE=distroless-cc and BUILD_PACKAGES="libssl-dev pkg-config"'
cure 'system library\|pkg-config has not\|run `PKG_CONFIG' \
    'a library is missing: pass BASE=debian-slim and BUILD_PACKAGES="pkg-config …", with the package of its headers'
cure 'No such file' 'a program or file is missing: pass BUILD_PACKAGES, or append the file to .dockerignore'
exit 1
EOF

# The dependencies have their own layer. cargo-chef writes stubs in place of the code, and cargo builds the stubs with
# the arguments of the real build. This needs vendored crates if there are any. The pattern `[r]` makes their directory
# optional.
COPY --from=plan /plan /plan
COPY vendo[r] vendor/
# The secret and the SSH agent exist while the command runs, and are in no layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/usr/local/cargo/git \
    --mount=type=secret,id=cargo-credentials,target=/usr/local/cargo/credentials.toml \
    --mount=type=ssh <<EOF
set -eu
cargo chef cook --no-build --recipe-path /plan/recipe.json
! command -v rustup || rustup target add "$(cat /plan/target)"
compile build
EOF

COPY . .
# These arguments change with every commit. They are declared late, so that the layers above stay cached.
ARG VERSION GIT_COMMIT BUILD_DATE SOURCE_DATE_EPOCH
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/usr/local/cargo/git \
    --mount=type=secret,id=cargo-credentials,target=/usr/local/cargo/credentials.toml \
    --mount=type=ssh <<EOF
set -eu
# Cargo compares times, and a source file can be older than its stub.
find . -path ./vendor -prune -o -type f -exec touch {} +
# cargo-auditable embeds the list of crates, which image scanners read.
compile auditable build
install -D -m 0555 "/target/$(cat /plan/target)/release/$(cat /plan/executable)" /out/app
# The layer contains the file's time, so a fixed time makes the layer reproducible.
touch -d "@${SOURCE_DATE_EPOCH:-0}" /out/app
EOF

# Starts the binary in its base. If the base lacks a library, or the binary has no `healthcheck` command, the build
# fails instead of the deployment.
COPY --chmod=0755 <<'EOF' /usr/local/bin/start
#!/bin/sh -eu
if [ "$BUILDARCH" != "$TARGETARCH" ]; then echo "not started, because it is for $TARGETARCH"; exit; fi
cp /out/app /base/app
help=$(timeout -s KILL 10 chroot /base /app healthcheck --help) && [ -n "$help" ] && exit
echo "error: in the base $BASE, \`/app healthcheck --help\` did not print its help within 10 s." \
    "Either the base lacks what the message above names, or main() does not begin with Cli::run()" >&2
exit 1
EOF

ARG BASE BUILDARCH TARGETARCH
RUN --mount=type=bind,from=base,target=/base,rw start

# The final image: the base, one file and metadata.
FROM base AS image
# There is no --link here, because Podman 5.4 refuses it.
COPY --from=build /out/app /app
WORKDIR /
# The user is a number, because Kubernetes' runAsNonRoot cannot verify a name.
USER 65532:65532
ARG PORT=8080
EXPOSE ${PORT}
# The service's own binary is the probe. During the start, the probe runs every second instead of every 30.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --start-interval=1s --retries=3 CMD ["/app", "healthcheck"]
# In exec form, the service itself gets SIGTERM. Shell form needs a shell, which most bases do not have.
ENTRYPOINT ["/app"]
ARG TITLE PACKAGE BIN EXAMPLE DESCRIPTION SOURCE LICENSES VERSION GIT_COMMIT BUILD_DATE
LABEL org.opencontainers.image.title="${TITLE:-${BIN:-${EXAMPLE:-${PACKAGE:-unknown}}}}" \
      org.opencontainers.image.description="${DESCRIPTION:-unknown}" \
      org.opencontainers.image.source="${SOURCE:-unknown}" \
      org.opencontainers.image.licenses="${LICENSES:-unknown}" \
      org.opencontainers.image.version="${VERSION:-unknown}" \
      org.opencontainers.image.revision="${GIT_COMMIT:-unknown}" \
      org.opencontainers.image.created="${BUILD_DATE:-unknown}"
