#!/usr/bin/env bash
# Measures Parlor under every load, beside what else is installed, and shows the results as a page and a picture.
#   BENCH_OUT    where results go, a JSON file each [target/bench]
#   BENCH_PEERS  "no": install nothing; what is missing is skipped by name
#   BENCH_REPS   how often each peer is measured [3]
#   BENCH_SECS   seconds of each measurement [3]
#   BENCH_LOGS   a folder of chat logs for the scenario `chat`, which is skipped without [../shared/data/ubuntu-irc]
set -euo pipefail
cd "$(dirname "$0")/.."

out="${BENCH_OUT:-${CARGO_TARGET_DIR:-target}/bench}"
mkdir -p "$out"
out=$(cd "$out" && pwd)
options=()
[ -z "${BENCH_REPS:-}" ] || options+=(--reps "$BENCH_REPS")
[ -z "${BENCH_SECS:-}" ] || options+=(--secs "$BENCH_SECS")
logs="${BENCH_LOGS:-../shared/data/ubuntu-irc}"
ulimit -n "$(ulimit -Hn)"
failed=()

# stress NAME SCENARIO [OPTION...]: a scenario; its result is NAME.json.
stress() {
    local name=$1
    shift
    printf '\n== %s\n' "$*"
    # What an earlier run left must not be shown as this one's.
    rm -f "$out/$name.json"
    "${CARGO:-cargo}" bench --quiet --bench stress -- "$@" ${options[@]+"${options[@]}"} --json "$out/$name.json" ||
        failed+=("$name")
}

[ "${BENCH_PEERS:-yes}" = no ] || scripts/bench-peers.sh

stress w1a fanout w1a
stress w1b fanout w1b
stress w1c fanout w1c
stress w1e fanout w1e --peers parlor-buffered,parlor-synced,raw-tokio,redis,nats,rumqttd,mosquitto,ejabberd
stress durable-1 durable --publishers 1
stress durable-16 durable --publishers 16
stress durable-256 durable --publishers 256 --peers parlor,raw-sync,redis,nats,nats-buffered
stress durable-16x16 durable --publishers 16 --window 16
stress buffered-256 durable --publishers 256 --storage buffered
stress memory-256 durable --publishers 256 --storage memory --peers parlor,redis
stress idle idle
stress replay replay --storage buffered
stress inprocess inprocess
stress inprocess-fanout inprocess --members 10000
stress large large
stress rooms rooms
stress growth growth --reps 1
stress recovery recovery --reps 1
stress beats idle --beats 30 --peers parlor,redis,nats --reps 1
stress joins joins
stress joins-history joins --newest 50 --peers parlor
stress reconnects reconnects
stress asleep asleep --storage buffered --reps 1
if [ -n "${BENCH_LOGS:-}" ] || [ -d "$logs" ]; then stress chat chat --logs "$logs"; else stress chat chat; fi
stress sweep sweep --reps 1
# A new scenario has its line here.

printf '\n== report\n'
"${CARGO:-cargo}" bench --quiet --bench stress -- report "$out" --html "$out/report.html" --svg "$out/speed.svg" ||
    failed+=(report)
echo "the results are in $out; open $out/report.html"

printf '\n== micro-benchmarks\n'
"${CARGO:-cargo}" bench --quiet --bench core
"${CARGO:-cargo}" bench --quiet --bench instructions

if [ ${#failed[@]} -gt 0 ]; then
    echo "not all repetitions were sound, or not all scenarios ran: ${failed[*]}" >&2
    exit 1
fi
