#!/usr/bin/env bash
# Replays IRC logs against a server in a process of its own, which is killed (SIGKILL) three times on the way and
# restarted on the same data. Passes if `parlor replay --verify` does.
#   scripts/crash-replay.sh FILE...
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --release --quiet
parlor="${CARGO_TARGET_DIR:-target}/release/parlor"
folder=$(mktemp -d)
address=127.0.0.1:7457
ulimit -n "$(ulimit -Hn)"

start() {
    "$parlor" serve --send-rate off --listen "$address" --data "$folder/data" >>"$folder/serve.out" 2>>"$folder/serve.err" &
    server=$!
    until grep -q "parlor listens" "$folder/serve.out"; do
        kill -0 "$server" || { cat "$folder/serve.err"; exit 1; }
        sleep 0.05
    done
    : >"$folder/serve.out"
}
trap 'kill -9 $server 2>/dev/null; rm -rf "$folder"' EXIT

start
"$parlor" replay --server "$address" --room-per-file --readers 3 --verify --json "$@" &
replay=$!
for pause in 3 4 4; do
    sleep "$pause"
    kill -0 "$replay" 2>/dev/null || { echo "the replay ended before all kills: give it more files"; exit 1; }
    kill -9 "$server"
    wait "$server" 2>/dev/null || true
    echo "killed" >&2
    start
done
wait "$replay"
echo "the replay is whole after three kills"
