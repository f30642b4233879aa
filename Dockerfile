# check=skip=SecretsUsedInArgOrEnv
# CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS only sounds like a secret.
#
# The image of any service that answers `version` and `healthcheck`, a crate or a workspace, unedited:
#
#   docker build --target distroless-static --build-arg PACKAGE=… --build-arg BIN=… \
#     --build-arg VERSION="$(git describe --tags --always --dirty)" \
#     --build-arg GIT_COMMIT="$(git rev-parse HEAD)" \
#     --build-arg BUILD_DATE="$(TZ=UTC git log -1 --format=%cd --date=format-local:%FT%TZ)" \
#     --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" .
#
# | target            | base                   | linked with      |
# |-------------------|------------------------|------------------|
# | from-scratch      | nothing at all         | musl, statically |
# | distroless-static | no libc (the default)  | musl, statically |
# | alpine            | busybox and apk        | musl, statically |
# | distroless-cc     | glibc, libgcc, OpenSSL | glibc            |
# | debian-slim       | Debian                 | glibc            |
#
# | argument                             | default                                                     |
# |--------------------------------------|-------------------------------------------------------------|
# | PACKAGE                              | the package in the root, else any of the workspace          |
# | FEATURES                             | the default ones; more of them, with commas between         |
# | BIN, EXAMPLE                         | the only binary; where there is none, examples/service.rs   |
# | BUILD_PACKAGES                       | none; the system's packages that build scripts need         |
# | VERSION, GIT_COMMIT, BUILD_DATE      | unknown; they become labels, and the binary's own metadata  |
# | TITLE                                | BIN, EXAMPLE or PACKAGE                                     |
# | DESCRIPTION, SOURCE, LICENSES        | unknown; they become labels                                 |
# | SOURCE_DATE_EPOCH                    | 0; the executable's date, and for BuildKit the image's      |
#
# | secret                               | what for                                                    |
# |--------------------------------------|-------------------------------------------------------------|
# | --secret id=cargo-credentials,src=…  | the credentials.toml of private registries                  |
# | --ssh default                        | git dependencies over SSH                                   |
#
# Path dependencies have to be members of the workspace: an empty [workspace] in the root's Cargo.toml makes them so.
#
# There is no `# syntax=` line: the frontend in Docker 25 knows all of this, another would be one more image to trust.

# A Debian with Rust: it makes the executables of all targets.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-trixie@sha256:e14e87345b4d5964ddcc3491d27ee046a0f23820f340c3c1e24da6880141f7c0
ARG DISTROLESS_STATIC_IMAGE=gcr.io/distroless/static-debian13:nonroot@sha256:e2e927ec666bae08560abb3c55d0659eceabb657f56b6782ab500a9fc7f555e3
ARG DISTROLESS_CC_IMAGE=gcr.io/distroless/cc-debian13:nonroot@sha256:e792ab3d241a468a4fd7519ddbbebe66b49b5f365771716ea688ad40b6c6f1c2
ARG ALPINE_IMAGE=docker.io/library/alpine:3.23@sha256:fd791d74b68913cbb027c6546007b3f0d3bc45125f797758156952bc2d6daf40
ARG DEBIAN_SLIM_IMAGE=docker.io/library/debian:trixie-slim@sha256:020c0d20b9880058cbe785a9db107156c3c75c2ac944a6aa7ab59f2add76a7bd


# Runs where the builder runs, whatever it builds for: compilers cross, emulators crawl.
FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS tools
WORKDIR /src
# For dependencies written in C.
RUN <<EOF
set -eu
if ! command -v musl-gcc; then
    apt-get update
    apt-get install --yes --no-install-recommends musl-tools
    rm -r /var/lib/apt/lists/*
fi
# Builds share the cache of crates and not the folder above it, where cargo has its locks: now they share those too, and
# wait for each other's downloads alone.
mkdir -p /usr/local/cargo/registry
for lock in .package-cache .package-cache-mutate; do
    ln -sf "registry/$lock" /usr/local/cargo/
done
EOF

# A debug build, because these run for less time than optimizing them takes.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo install --locked --debug --config profile.dev.debug=false cargo-chef@0.1.78 cargo-auditable@0.7.7


# Settles what is built before anything is compiled: the recipe of the dependencies, cargo's arguments for the
# executable, where below the target directory it will be, and the sources. A change of code changes only the last.
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
echo "$arguments ${FEATURES:+--features=$FEATURES} ${BIN:+--bin=$BIN}${EXAMPLE:+--example=$EXAMPLE}" >/plan/arguments
echo "${EXAMPLE:+examples/}$BIN$EXAMPLE" >/plan/executable

# Vendored crates are dependencies: there before the code is, and whole, for cargo compares their checksums.
[ ! -d vendor ] || mv vendor /plan/

# A page that only people and rustdoc read is no source: a change of it builds nothing.
for page in README.md CHANGELOG.md; do
    find . \( -name tests -o -name benches \) -prune -o -name '*.rs' -exec grep -hE "$page|CARGO_PKG_README" {} + |
        grep -qvE '^ *//|^ *#!?\[cfg_attr\(((any\()?(doc|docsrs|doctest)(, (doc|docsrs|doctest)\))?),.*\)\]$' ||
        find . -name "$page" -delete
done
EOF

COPY . .
ARG PACKAGE="" BIN="" EXAMPLE="" FEATURES=""
RUN plan


FROM tools AS builder
ENV CARGO_TARGET_DIR=/target
# Takes the token of a private registry from credentials.toml; cargo asks to be told so.
ENV CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS=cargo:token
ARG BUILD_PACKAGES=""
RUN <<EOF
set -eu
[ -n "$BUILD_PACKAGES" ] || exit 0
apt-get update
apt-get install --yes --no-install-recommends $BUILD_PACKAGES
rm -r /var/lib/apt/lists/*
EOF

COPY --chmod=0755 <<'EOF' /usr/local/bin/cook
#!/bin/sh -eu
# Stubs in the place of the code, and the very arguments of the build below: cargo then finds each dependency done.
cargo chef cook --no-build --recipe-path /plan/recipe.json
[ ! -d /plan/vendor ] || ln -s /plan/vendor .
! command -v rustup || rustup target add "$CARGO_BUILD_TARGET"
xargs cargo build --release --locked </plan/arguments
EOF

COPY --chmod=0755 <<'EOF' /usr/local/bin/build
#!/bin/sh -eu
# cargo compares times, and a file may be older than the stub that was compiled for it.
find . -type f -exec touch {} +
xargs cargo auditable build --release --locked </plan/arguments
install -D -m 0555 "$CARGO_TARGET_DIR/$CARGO_BUILD_TARGET/release/$(cat /plan/executable)" /out/app
# The same bytes, the same image.
touch -d "@${SOURCE_DATE_EPOCH:-0}" /out/app
EOF

COPY --chmod=0755 <<'EOF' /usr/local/bin/start
#!/bin/sh -eu
# What the base in folder $1 cannot start, or what has as little to say as a stub, becomes no image.
fail() { echo "error: $1" >&2; exit 1; }

libraries=$(readelf -ldW /out/app | sed -n 's/.*interpreter: \(.*\)]$/\1/p; s/.*(NEEDED).*\[\(.*\)]$/\1/p')
for library in $libraries; do
    [ -n "$(find "$1" -name "${library##*/}" -print -quit)" ] ||
        fail "the executable needs $library, which this base does not have: choose another --target, or link it statically"
done
case $(rustc --version --verbose | sed -n 's/^host: //p') in
    "${CARGO_BUILD_TARGET%%-*}"-*)
        cp /out/app "$1/app"
        version=$(timeout -k 1 10 chroot "$1" /app version) ||
            fail "app version: exit code $? (124 or 137: still running after 10 s): it has to print its version and end"
        echo "${version:?printed nothing}"
        ;;
    *) echo "not started: it is for $CARGO_BUILD_TARGET" ;;
esac
EOF


# The target is named even where it is the host's own: the same lines then work across architectures. Rust brings what
# links with musl; it needs no C compiler for another architecture.
FROM builder AS musl-amd64
ENV CARGO_BUILD_TARGET=x86_64-unknown-linux-musl CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld

FROM builder AS musl-arm64
ENV CARGO_BUILD_TARGET=aarch64-unknown-linux-musl CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld

# hadolint ignore=DL3006
FROM musl-${TARGETARCH} AS musl
COPY --from=plan /plan /plan
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/usr/local/cargo/git \
    --mount=type=secret,id=cargo-credentials,target=/usr/local/cargo/credentials.toml \
    --mount=type=ssh \
    cook
COPY --from=plan /src /src
# These differ with each commit, so nothing before them may see them.
ARG VERSION GIT_COMMIT BUILD_DATE SOURCE_DATE_EPOCH
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/usr/local/cargo/git \
    --mount=type=secret,id=cargo-credentials,target=/usr/local/cargo/credentials.toml \
    --mount=type=ssh \
    build


FROM builder AS gnu-amd64
ENV CARGO_BUILD_TARGET=x86_64-unknown-linux-gnu CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=x86_64-linux-gnu-gcc
RUN <<EOF
set -eu
if ! command -v x86_64-linux-gnu-gcc; then
    apt-get update
    apt-get install --yes --no-install-recommends gcc-x86-64-linux-gnu libc6-dev-amd64-cross
    rm -r /var/lib/apt/lists/*
fi
EOF

FROM builder AS gnu-arm64
ENV CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
RUN <<EOF
set -eu
if ! command -v aarch64-linux-gnu-gcc; then
    apt-get update
    apt-get install --yes --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    rm -r /var/lib/apt/lists/*
fi
EOF

# hadolint ignore=DL3006
FROM gnu-${TARGETARCH} AS gnu
COPY --from=plan /plan /plan
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/usr/local/cargo/git \
    --mount=type=secret,id=cargo-credentials,target=/usr/local/cargo/credentials.toml \
    --mount=type=ssh \
    cook
COPY --from=plan /src /src
ARG VERSION GIT_COMMIT BUILD_DATE SOURCE_DATE_EPOCH
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/usr/local/cargo/git \
    --mount=type=secret,id=cargo-credentials,target=/usr/local/cargo/credentials.toml \
    --mount=type=ssh \
    build


FROM musl AS from-scratch-app
RUN mkdir /base && start /base

# A stage that is called scratch would be the source of each mount that names none, and BuildKit 0.13 dies of the circle.
FROM scratch AS from-scratch
# Not --link: Podman 5.4 refuses it.
COPY --from=from-scratch-app /out/app /app
WORKDIR /
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --start-interval=1s --retries=3 CMD ["/app", "healthcheck"]
ENTRYPOINT ["/app"]
ARG PACKAGE BIN EXAMPLE TITLE DESCRIPTION SOURCE LICENSES VERSION GIT_COMMIT BUILD_DATE
LABEL org.opencontainers.image.title="${TITLE:-${BIN:-${EXAMPLE:-${PACKAGE:-unknown}}}}" \
      org.opencontainers.image.description="${DESCRIPTION:-unknown}" \
      org.opencontainers.image.source="${SOURCE:-unknown}" \
      org.opencontainers.image.licenses="${LICENSES:-unknown}" \
      org.opencontainers.image.version="${VERSION:-unknown}" \
      org.opencontainers.image.revision="${GIT_COMMIT:-unknown}" \
      org.opencontainers.image.created="${BUILD_DATE:-unknown}" \
      org.opencontainers.image.base.name="scratch"


FROM ${ALPINE_IMAGE} AS alpine-base

FROM musl AS alpine-app
RUN --mount=type=bind,from=alpine-base,target=/base,rw start /base

FROM alpine-base AS alpine
COPY --from=alpine-app /out/app /app
WORKDIR /
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --start-interval=1s --retries=3 CMD ["/app", "healthcheck"]
ENTRYPOINT ["/app"]
ARG ALPINE_IMAGE PACKAGE BIN EXAMPLE TITLE DESCRIPTION SOURCE LICENSES VERSION GIT_COMMIT BUILD_DATE
LABEL org.opencontainers.image.title="${TITLE:-${BIN:-${EXAMPLE:-${PACKAGE:-unknown}}}}" \
      org.opencontainers.image.description="${DESCRIPTION:-unknown}" \
      org.opencontainers.image.source="${SOURCE:-unknown}" \
      org.opencontainers.image.licenses="${LICENSES:-unknown}" \
      org.opencontainers.image.version="${VERSION:-unknown}" \
      org.opencontainers.image.revision="${GIT_COMMIT:-unknown}" \
      org.opencontainers.image.created="${BUILD_DATE:-unknown}" \
      org.opencontainers.image.base.name="${ALPINE_IMAGE}"


FROM ${DEBIAN_SLIM_IMAGE} AS debian-slim-base

FROM gnu AS debian-slim-app
RUN --mount=type=bind,from=debian-slim-base,target=/base,rw start /base

FROM debian-slim-base AS debian-slim
COPY --from=debian-slim-app /out/app /app
WORKDIR /
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --start-interval=1s --retries=3 CMD ["/app", "healthcheck"]
ENTRYPOINT ["/app"]
ARG DEBIAN_SLIM_IMAGE PACKAGE BIN EXAMPLE TITLE DESCRIPTION SOURCE LICENSES VERSION GIT_COMMIT BUILD_DATE
LABEL org.opencontainers.image.title="${TITLE:-${BIN:-${EXAMPLE:-${PACKAGE:-unknown}}}}" \
      org.opencontainers.image.description="${DESCRIPTION:-unknown}" \
      org.opencontainers.image.source="${SOURCE:-unknown}" \
      org.opencontainers.image.licenses="${LICENSES:-unknown}" \
      org.opencontainers.image.version="${VERSION:-unknown}" \
      org.opencontainers.image.revision="${GIT_COMMIT:-unknown}" \
      org.opencontainers.image.created="${BUILD_DATE:-unknown}" \
      org.opencontainers.image.base.name="${DEBIAN_SLIM_IMAGE}"


FROM ${DISTROLESS_CC_IMAGE} AS distroless-cc-base

FROM gnu AS distroless-cc-app
RUN --mount=type=bind,from=distroless-cc-base,target=/base,rw start /base

FROM distroless-cc-base AS distroless-cc
COPY --from=distroless-cc-app /out/app /app
# The base's own, /home/nonroot, is closed to any other user.
WORKDIR /
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --start-interval=1s --retries=3 CMD ["/app", "healthcheck"]
ENTRYPOINT ["/app"]
ARG DISTROLESS_CC_IMAGE PACKAGE BIN EXAMPLE TITLE DESCRIPTION SOURCE LICENSES VERSION GIT_COMMIT BUILD_DATE
LABEL org.opencontainers.image.title="${TITLE:-${BIN:-${EXAMPLE:-${PACKAGE:-unknown}}}}" \
      org.opencontainers.image.description="${DESCRIPTION:-unknown}" \
      org.opencontainers.image.source="${SOURCE:-unknown}" \
      org.opencontainers.image.licenses="${LICENSES:-unknown}" \
      org.opencontainers.image.version="${VERSION:-unknown}" \
      org.opencontainers.image.revision="${GIT_COMMIT:-unknown}" \
      org.opencontainers.image.created="${BUILD_DATE:-unknown}" \
      org.opencontainers.image.base.name="${DISTROLESS_CC_IMAGE}"


FROM ${DISTROLESS_STATIC_IMAGE} AS distroless-static-base

FROM musl AS distroless-static-app
RUN --mount=type=bind,from=distroless-static-base,target=/base,rw start /base

FROM distroless-static-base AS distroless-static
COPY --from=distroless-static-app /out/app /app
WORKDIR /
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --start-interval=1s --retries=3 CMD ["/app", "healthcheck"]
ENTRYPOINT ["/app"]
ARG DISTROLESS_STATIC_IMAGE PACKAGE BIN EXAMPLE TITLE DESCRIPTION SOURCE LICENSES VERSION GIT_COMMIT BUILD_DATE
LABEL org.opencontainers.image.title="${TITLE:-${BIN:-${EXAMPLE:-${PACKAGE:-unknown}}}}" \
      org.opencontainers.image.description="${DESCRIPTION:-unknown}" \
      org.opencontainers.image.source="${SOURCE:-unknown}" \
      org.opencontainers.image.licenses="${LICENSES:-unknown}" \
      org.opencontainers.image.version="${VERSION:-unknown}" \
      org.opencontainers.image.revision="${GIT_COMMIT:-unknown}" \
      org.opencontainers.image.created="${BUILD_DATE:-unknown}" \
      org.opencontainers.image.base.name="${DISTROLESS_STATIC_IMAGE}"
