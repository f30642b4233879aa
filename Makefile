# The image, with what git and Cargo.toml know of it. Copy this file beside the Dockerfile.
#
#   make image     builds TAG from TARGET
#   make images    builds TAG-TARGET for each target
#   make run       builds TAG and runs it, locked down, on port 8080
#
# On the command line: TAG, TARGET, PACKAGE, BIN, EXAMPLE, FEATURES, MANIFEST (of a workspace's member), and FLAGS for docker build.

MANIFEST ?= Cargo.toml
TARGET ?= distroless-static
TARGETS := from-scratch distroless-static alpine distroless-cc debian-slim

field = $(shell sed -n '/^\[\(workspace\.\)*package\]/,/^\[/s/^$(1) *= *"\([^"][^"]*\)".*/\1/p' $(MANIFEST) | head -n 1)

TAG ?= $(or $(BIN),$(EXAMPLE),$(PACKAGE),$(call field,name),$(notdir $(CURDIR)))

# Docker takes an argument that is named without a value from the environment, where no quoting can go wrong.
export PACKAGE BIN EXAMPLE FEATURES
export TITLE ?= $(or $(BIN),$(EXAMPLE),$(PACKAGE),$(call field,name))
export DESCRIPTION ?= $(call field,description)
export SOURCE ?= $(call field,repository)
export LICENSES ?= $(call field,license)
export VERSION ?= $(or $(shell git describe --tags --always --dirty 2>/dev/null),$(call field,version))
export GIT_COMMIT ?= $(shell git rev-parse --verify --quiet HEAD 2>/dev/null)
# The commit's time and never the clock's: the same commit is the same image.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null)
export BUILD_DATE ?= $(shell TZ=UTC git log -1 --format=%cd --date=format-local:%FT%TZ 2>/dev/null)

# Git refuses to read another user's checkout, as in most CI containers. Its message ends with the command that helps.
message := $(shell git rev-parse 2>&1)
$(if $(findstring safe.directory,$(message)),$(warning git cannot read version, commit and dates: $(strip $(message))))

arguments := PACKAGE BIN EXAMPLE FEATURES TITLE DESCRIPTION SOURCE LICENSES VERSION GIT_COMMIT BUILD_DATE SOURCE_DATE_EPOCH
build = docker build $(arguments:%=--build-arg %) $(FLAGS)

.PHONY: image images run
image:
	$(build) --target $(TARGET) --tag $(TAG) .

images:
	for target in $(TARGETS); do $(build) --target "$$target" --tag "$(TAG)-$$target" . || exit; done

run: image
	docker run --rm --read-only --cap-drop ALL --security-opt no-new-privileges --publish 8080:8080 $(TAG)
