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
	@echo "make bench  measure Parlor under load, beside what else is installed (about ten minutes), then its parts"
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

# Results go to $(BENCH_OUT), a JSON file each; benches/README.md says how to read them.
BENCH_OUT ?= $(TARGET)/bench
STRESS = $(CARGO) bench --bench stress --

bench: setup
	mkdir -p $(BENCH_OUT)
	$(STRESS) fanout w1a --json $(abspath $(BENCH_OUT))/w1a.json
	$(STRESS) fanout w1b --json $(abspath $(BENCH_OUT))/w1b.json
	$(STRESS) fanout w1c --json $(abspath $(BENCH_OUT))/w1c.json
	$(STRESS) fanout w1e --peers parlor-buffered,parlor-synced,raw-tokio,redis,nats,rumqttd \
		--json $(abspath $(BENCH_OUT))/w1e.json
	$(STRESS) durable --publishers 1 --json $(abspath $(BENCH_OUT))/durable-1.json
	$(STRESS) durable --publishers 16 --json $(abspath $(BENCH_OUT))/durable-16.json
	$(STRESS) durable --publishers 256 --peers parlor,raw-sync,redis,nats,nats-buffered \
		--json $(abspath $(BENCH_OUT))/durable-256.json
	$(STRESS) durable --publishers 16 --window 16 --json $(abspath $(BENCH_OUT))/durable-16x16.json
	$(STRESS) durable --publishers 256 --storage buffered --json $(abspath $(BENCH_OUT))/buffered-256.json
	$(STRESS) idle --json $(abspath $(BENCH_OUT))/idle.json
	$(STRESS) replay --storage buffered --json $(abspath $(BENCH_OUT))/replay.json
	$(STRESS) inprocess --json $(abspath $(BENCH_OUT))/inprocess.json
	$(STRESS) inprocess --members 10000 --json $(abspath $(BENCH_OUT))/inprocess-fanout.json
	$(CARGO) bench --bench core
