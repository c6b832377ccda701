# Parlor's commands. `make run` and `make test` need nothing but Rust: they install what else is missing.

CARGO ?= cargo
TARGET = $(or $(CARGO_TARGET_DIR),target)
LISTEN ?= 127.0.0.1:7400

.PHONY: help run test long lint fmt bench setup build

help:
	@echo "make run    build Parlor and start a server on $(LISTEN)"
	@echo "make test   run all tests (about five minutes)"
	@echo "make long   run the long proofs: crashes under real load, many seeds (about half an hour)"
	@echo "make lint   formatting, clippy and documentation, warnings denied"
	@echo "make bench  install what Parlor is measured beside, measure all under load, make a report (about an hour)"
	@echo "make setup  install a C++ compiler and libclang where they are missing"

setup:
	@scripts/setup.sh

build: setup
	@echo "Building Parlor. The first time this compiles RocksDB, which takes 15 to 30 minutes on two cores."
	$(CARGO) build --release

run: build
	@echo
	@echo "Open two more terminals here and run in each:"
	@echo
	@echo "    $(TARGET)/release/parlor chat lobby --as ann --server $(LISTEN)"
	@echo "    $(TARGET)/release/parlor chat lobby --as bob --server $(LISTEN)"
	@echo
	@echo "Ctrl-C here stops the server; the chats wait for it and go on when it is back."
	@echo
	$(TARGET)/release/parlor serve --listen $(LISTEN)

test: setup
	$(CARGO) test --workspace

long: setup
	scripts/long.sh

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy -p parlor --no-default-features --features client --all-targets -- -D warnings
	$(CARGO) clippy -p parlor --no-default-features --features engine --lib -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

fmt:
	$(CARGO) fmt --all

# BENCH_OUT, BENCH_PEERS, BENCH_REPS, BENCH_SECS and BENCH_LOGS: see scripts/bench.sh. benches/README.md says how to read it.
bench: setup
	CARGO="$(CARGO)" scripts/bench.sh
