# Builds the image with the metadata that git and Cargo.toml know. Copy this file beside the Dockerfile.
#
#   make image     builds TAG on BASE
#   make images    builds TAG-BASE for each base
#   make run       builds TAG and runs it without privileges, with PORT published
#   make metadata  prints the metadata that the image gets, as NAME=VALUE lines
#
# Variables for the command line: TAG, BASE, PACKAGE, BIN, EXAMPLE, FEATURES, BUILD_PACKAGES, FILES, WRITABLE, PORT,
# COMMAND (the arguments that the service starts with by default, such as "serve --workers 4"), and FLAGS for docker build.

BASE ?= distroless-static
BASES := scratch distroless-static alpine distroless-cc debian-slim
PORT ?= 8080

# Other tables, such as [[bin]], have a name too.
manifest := $(or $(if $(PACKAGE),$(shell find . '(' -name target -o -name vendor ')' -prune -o -name Cargo.toml \
    -exec awk '/^\[/ { table = $$1 } table == "[package]" && /^name *= *"$(PACKAGE)"/ { print FILENAME }' {} + | \
    head -n 1)),Cargo.toml)
read = $(shell sed -n '/^\[$(1)\]/,/^\[/s/^$(2) *= *"\([^"][^"]*\)".*/\1/p' $(3) | head -n 1)
# Returns a field of the package, or of the workspace if the package inherits the field.
field = $(or $(call read,package,$(1),$(manifest)),$(call read,workspace\.package,$(1),Cargo.toml))

TAG ?= $(or $(BIN),$(EXAMPLE),$(PACKAGE),$(call field,name),$(notdir $(CURDIR)))

# Docker reads the values from the environment, so no shell interprets them.
export BASE PACKAGE BIN EXAMPLE FEATURES BUILD_PACKAGES FILES WRITABLE PORT
export TITLE ?= $(or $(BIN),$(EXAMPLE),$(PACKAGE),$(call field,name))
export DESCRIPTION ?= $(call field,description)
export SOURCE ?= $(call field,repository)
export LICENSES ?= $(call field,license)
# The output of `git describe` without the `v`. Without a tag, the version is the package's, as `build_info!` also
# reports it. Both end with `-dirty` if the checkout has changes.
export VERSION ?= $(or $(shell git describe --tags --dirty --match 'v[0-9]*' --match '[0-9]*' 2>/dev/null | sed 's/^v//'),\
    $(addsuffix $(dirty),$(call field,version)))
dirty = $(shell git describe --always --exclude '*' --dirty 2>/dev/null | grep -o -e -dirty)
export GIT_COMMIT ?= $(shell git rev-parse --verify --quiet HEAD 2>/dev/null)
# The time of the commit instead of the current time, so that a commit always gives the same image.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)
export BUILD_DATE ?= $(shell TZ=UTC git log -1 --format=%cd --date=format-local:%FT%TZ 2>/dev/null)

# In most CI containers another user owns the checkout, and git refuses to read it. Git's message ends with the command
# that permits it.
$(if $(GIT_COMMIT),,$(warning no tag, commit or date from git: $(shell git rev-parse --verify HEAD 2>&1 >/dev/null)))
$(if $(VERSION),,$(warning no version: pass PACKAGE=… or VERSION=…))

metadata := TITLE DESCRIPTION SOURCE LICENSES VERSION GIT_COMMIT BUILD_DATE SOURCE_DATE_EPOCH
arguments := PACKAGE BIN EXAMPLE FEATURES BUILD_PACKAGES FILES WRITABLE PORT $(metadata)
# CMD does not expand build arguments, so a CMD line with the words of COMMAND is appended to the Dockerfile. xargs
# splits COMMAND at spaces and honours quotes, and no shell expands the words.
override export COMMAND := $(value COMMAND)
words := words="$$(printf '%s\n' "$$COMMAND" | xargs printf '"%s"\n')"
json := $$(printf '%s' "$$words" | sed 's/[\"]/\\&/g; s/^\\//; s/\\"$$/"/' | paste -sd , -)
dockerfile := { cat Dockerfile; if [ -n "$$COMMAND" ]; then printf 'CMD [%s]\n' "$(json)"; fi; }
build = $(words) && $(dockerfile) | docker build --file - $(arguments:%=--build-arg %) $(FLAGS)

.PHONY: image images run metadata
image:
	$(build) --build-arg BASE --tag '$(TAG)' .

images:
	for base in $(BASES); do $(build) --build-arg BASE=$$base --tag '$(TAG)'-$$base . || exit; done

run: image
	docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges --publish $(PORT):$(PORT) '$(TAG)'

metadata:
	@for name in $(metadata); do printf '%s=%s\n' "$$name" "$$(printenv $$name)"; done
