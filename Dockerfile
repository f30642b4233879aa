# check=skip=SecretsUsedInArgOrEnv
# (That check mistakes CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS for a secret.)
#
# Builds the image of a Rust service. docs/image.md lists the arguments, and the Makefile sets most of them.
# There is no `# syntax=` line, because Docker 25 needs none, and a frontend would be one more image to trust.

# scratch, distroless-static and alpine get a static binary with musl, distroless-cc and debian-slim one with glibc.
ARG BASE=distroless-static
# The images are pinned by digest, because tags move. Renovate updates them, and docs/bases.md says how to verify them.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-trixie@sha256:e14e87345b4d5964ddcc3491d27ee046a0f23820f340c3c1e24da6880141f7c0
ARG DISTROLESS_STATIC_IMAGE=gcr.io/distroless/static-debian13:nonroot@sha256:e2e927ec666bae08560abb3c55d0659eceabb657f56b6782ab500a9fc7f555e3
ARG ALPINE_IMAGE=docker.io/library/alpine:3.23@sha256:fd791d74b68913cbb027c6546007b3f0d3bc45125f797758156952bc2d6daf40
ARG DISTROLESS_CC_IMAGE=gcr.io/distroless/cc-debian13:nonroot@sha256:e792ab3d241a468a4fd7519ddbbebe66b49b5f365771716ea688ad40b6c6f1c2
ARG DEBIAN_SLIM_IMAGE=docker.io/library/debian:trixie-slim@sha256:020c0d20b9880058cbe785a9db107156c3c75c2ac944a6aa7ab59f2add76a7bd

# The base images. BuildKit pulls only the image that BASE names.
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

# The tools run on the builder's own architecture and cross-compile, because emulation is many times slower.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS tools
WORKDIR /src
# The C compilers are for dependencies. Builders without a network set RUST_IMAGE to an image of this stage.
RUN command -v cargo-auditable || { \
    dpkg --add-architecture amd64 && dpkg --add-architecture arm64 && apt-get update && \
    apt-get install --yes --no-install-recommends cargo-auditable \
        gcc-x86-64-linux-gnu libc6-dev:amd64 musl-dev:amd64 gcc-aarch64-linux-gnu libc6-dev:arm64 musl-dev:arm64 && \
    rm -r /var/lib/apt/lists/*; }
# Parallel builds share a cache mount of downloads. With these links, they share cargo's locks too.
RUN mkdir -p /usr/local/cargo/registry && \
    ln -sf registry/.package-cache registry/.package-cache-mutate /usr/local/cargo

# The target, in a stage of its own: bases with the same libc share what is built after it.
FROM tools AS target
ARG BASE TARGETARCH
RUN <<EOF
set -eu
case $TARGETARCH in amd64) cpu=x86_64 ;; arm64) cpu=aarch64 ;; esac
case $BASE in distroless-cc | debian-slim) libc=gnu ;; *) libc=musl ;; esac
echo "$cpu-unknown-linux-$libc" >/target-triple
EOF

# What this service adds to the tools: Debian packages, and the toolchain that it pins.
FROM tools AS builder
ARG BUILD_PACKAGES=""
RUN if [ -n "$BUILD_PACKAGES" ]; then apt-get update && \
    apt-get install --yes --no-install-recommends $BUILD_PACKAGES && rm -r /var/lib/apt/lists/*; fi
# The pattern `[n]` makes a file optional. A change of code does not download the toolchain again.
COPY rust-toolchai[n] rust-toolchain.tom[l] ./
COPY --from=target /target-triple /target-triple
RUN ! command -v rustup || rustup target add "$(cat /target-triple)"

# The plan: cargo's arguments, and the manifests with stubs for code. They stay the same when only code changes.
FROM builder AS plan
# The scripts are files, because BuildKit prints the whole text of a RUN that fails, which would hide the error message.
COPY --chmod=0755 <<'EOF' /usr/local/bin/plan
#!/bin/sh -eu
fail() { echo "error: $1" >&2; exit 1; }
[ -f Cargo.lock ] || fail 'no Cargo.lock: commit it, and let .dockerignore pass it'
cargo metadata --no-deps --format-version=1 >/dev/null ||
    fail 'cargo cannot read the manifests. If a file is not in the build context, append it to .dockerignore, after a `!`'
set -- $BIN $EXAMPLE
# Without a name, --bin makes cargo list the binaries.
[ $# -gt 0 ] || set -- $(cargo build ${PACKAGE:+--package=$PACKAGE} --bin 2>&1 | sed -n 's/^    //p')
[ $# -eq 1 ] || fail "pass --build-arg BIN=…, PACKAGE=… or EXAMPLE=… to choose one binary; found: ${*:-none}"
[ -n "$EXAMPLE" ] && kind=example || kind=bin
mkdir /plan /stubs
echo "--$kind=$1 ${PACKAGE:+--package=$PACKAGE} ${FEATURES:+--features=$FEATURES}" >/plan/arguments
echo "${EXAMPLE:+examples/}$1" >/plan/executable
EOF

COPY . .
ARG PACKAGE="" BIN="" EXAMPLE="" FEATURES=""
RUN plan
RUN <<EOF
set -eu
printf '//! A stub.\n#![allow(dead_code)]\nfn main() {}\n' >/stub.rs
find . -path ./vendor -prune -o \( -name Cargo.toml -o -path ./Cargo.lock -o -path './.cargo/*' -type f \) \
    -exec cp --parents -t /stubs {} +
# Cargo lists the main file of each crate, also for packages outside the workspace.
find . -path ./vendor -prune -o -name Cargo.toml \
    -exec cargo metadata --no-deps --format-version=1 --manifest-path {} \; >/metadata 2>/dev/null
grep -o '"src_path":"/src/[^"]*' /metadata >/targets
sort -u -o /targets /targets
while IFS=/ read -r _ _ file; do install -D /stub.rs "/stubs/$file"; done </targets
EOF

# The build: first the dependencies, then the code, and then one start of the binary.
FROM builder AS build
# musl-gcc compiles C for musl, because the compilers that link have glibc's headers. The last variable makes cargo read
# the token of a private registry from a file.
ENV CARGO_TARGET_DIR=/target \
    CC_x86_64_unknown_linux_musl=x86_64-linux-musl-gcc \
    CC_aarch64_unknown_linux_musl=aarch64-linux-musl-gcc \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=x86_64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc \
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
    CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS=cargo:token

# What to do about common failures: a pattern, with a dot for each space, and the message. The first match is printed.
COPY <<'EOF' /cures
directory.of.OpenSSL            OpenSSL is missing: pass BASE=distroless-cc and BUILD_PACKAGES="libssl-dev pkg-config"
find.`protoc`                   protoc is missing: pass BUILD_PACKAGES=protobuf-compiler
`cmake`.not.installed           CMake is missing: pass BUILD_PACKAGES="cmake make"
find.libclang|'std[a-z]*[.]h'.file  libclang or its headers are missing: pass BUILD_PACKAGES=clang
locate.[A-Za-z/]*[.]pm          a module of Perl is missing: pass BUILD_PACKAGES="perl make"
'make'.not.found|"make"[^"]*to.execute.command:.No|find.a.build.program  make is missing: pass BUILD_PACKAGES=make
cc-rs:.failed.to.find.tool."[^"]*[+][+]|(No|The).CMAKE_CXX_COMPILER  C++ is missing: pass BASE=distroless-cc and BUILD_PACKAGES=g++, for arm64 on amd64 g++-aarch64-linux-gnu
The.system.library|pkg-config.(has.not|command)|run.`PKG_CONFIG  a library is missing: pass BASE=debian-slim and BUILD_PACKAGES="pkg-config …", with the package of its headers
failed.to.authenticate          git got no key: write the URL as ssh://, and pass --ssh default, see docs/private-dependencies.md
no.token.found.for              a registry got no token: pass --secret id=cargo-credentials,src=…
error:.couldn't.read|RustEmbed...folder|canonicalizing.migration|not.found.in.directories  a file is not in the build context: append it to .dockerignore, after a `!`
custom.build.command.*No.such.file  a program or file is missing: pass BUILD_PACKAGES, or append the file to .dockerignore, after a `!`
EOF

COPY --chmod=0755 <<'EOF' /usr/local/bin/compile
#!/bin/sh -eu
{ xargs cargo "$@" --release --locked --target "$(cat /target-triple)" </plan/arguments 2>&1 || touch /tmp/failed; } | tee /tmp/log
[ -e /tmp/failed ] || exit 0
while read -r pattern cure; do
    # With -z, the whole log is one line.
    if grep -qazE "$pattern" /tmp/log; then echo "error: $cure" >&2; break; fi
done </cures
exit 1
EOF

# The dependencies have their own layer, which a change of code does not touch. Vendored crates are optional.
COPY vendo[r] vendor/
COPY --from=plan /plan /plan
COPY --from=plan /stubs .
# The secret and the SSH agent exist while the command runs, and are in no layer. The caches are for the next build.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/usr/local/cargo/git \
    --mount=type=secret,id=cargo-credentials,target=/usr/local/cargo/credentials.toml \
    --mount=type=ssh \
    compile build

COPY . .
# These arguments change with every commit, so they are declared after the dependencies.
ARG FILES="" WRITABLE="" VERSION GIT_COMMIT BUILD_DATE SOURCE_DATE_EPOCH
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/usr/local/cargo/git \
    --mount=type=secret,id=cargo-credentials,target=/usr/local/cargo/credentials.toml \
    --mount=type=ssh <<EOF
set -eu
# Cargo compares times, and a source file can be older than its stub.
find . -path ./vendor -prune -o -type f -exec touch {} +
# cargo-auditable embeds the list of crates, which image scanners read.
compile auditable build
mkdir /out
for file in $FILES; do cp -rL --parents "$file" /out; done
chmod -R u=rwX,go=rX /out
# A new volume takes over the owner of the directory that it is mounted on.
for directory in $WRITABLE; do install -d -o 65532 -g 65532 "/out/$directory"; done
install -T -m 0555 "/target/$(cat /target-triple)/release/$(cat /plan/executable)" /out/app
# The layer contains the files' times, so a fixed time makes the layer reproducible.
find /out -exec touch -h -d "@${SOURCE_DATE_EPOCH:-0}" {} +
EOF

# The build fails instead of the deployment if the base lacks a library, or the binary has no `healthcheck` command.
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

# The final image: the base, the executable, FILES and WRITABLE, and metadata.
FROM base AS image
# There is no --link here, because Podman 5.4 refuses it.
COPY --from=build /out /
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
