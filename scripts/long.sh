#!/usr/bin/env bash
# The proofs that take too long for every change: crashes under real load again and again, many seeds.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step "the simulation of sessions, rooms and relays: 100,000 seeds"
PARLOR_SIM_SEEDS=100000 cargo test --release -p parlor-actors --test sim -- --nocapture

step "dedupe, paging and forgetting beside small models: 100,000 histories of each"
PARLOR_MODEL_SEEDS=100000 cargo test --release -p parlor-actors --test models -- --nocapture

step "rooms that forget, beside a model: 3,000 histories"
PARLOR_SWEEP_SEEDS=3000 cargo test --release -p parlor --lib random_histories -- --nocapture

step "erasing in a store of ten million records: the stated time"
PARLOR_ERASE_RECORDS=10000000 cargo test --release --test erasing -- --ignored --nocapture

step "a replay across kills, 20 times"
cargo test --release --test recovery --no-run
for round in $(seq 1 20); do
    cargo test --release --quiet --test recovery >/dev/null 2>&1 || { echo "round $round failed: run cargo test --release --test recovery"; exit 1; }
    echo "round $round passed"
done

step "real conversations against a server that is killed three times"
logs="${PARLOR_IRC_LOGS:-../shared/data/ubuntu-irc}"
if compgen -G "$logs/*.log" >/dev/null; then
    scripts/crash-replay.sh "$logs"/*.log
    step "real conversations with lost acks that expire and are swept while they go on"
    # A few files at a time: clients and engine are one process here, which may have so many open at once.
    printf '%s\0' "$logs"/*.log | xargs -0 -n 10 cargo run --quiet --release -- \
        replay --room-per-file --drop-acks 0.1 --ack-timeout-ms 200 --lifetime-ms 1500 --verify
else
    echo "SKIPPED: no IRC logs in $logs; PARLOR_IRC_LOGS names another folder"
fi
