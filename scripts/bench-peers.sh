#!/usr/bin/env bash
# Installs the systems that Parlor is measured beside, where it can: redis, nats, mosquitto and ejabberd through apt,
# rumqttd through cargo; and what counts instructions, valgrind and gungraun-runner. What was there before is not touched,
# except a gungraun-runner of another version, and no service that comes with a package is started, now or at the next
# boot. What cannot be installed is said, and the benches skip it by name.
set -uo pipefail

# What Debian calls the program, its package and its services.
programs=(redis-server nats-server mosquitto ejabberdctl valgrind)
packages=(redis-server nats-server mosquitto ejabberd valgrind)
declare -A services=(
    [redis-server]="redis-server"
    [nats-server]="nats-server"
    [mosquitto]="mosquitto"
    [ejabberd]="ejabberd epmd.socket epmd.service"
    [valgrind]=""
)

have() { PATH="$PATH:/usr/sbin:/usr/local/sbin:/usr/local/bin:$HOME/.cargo/bin" command -v "$1" >/dev/null; }
installed() { [ "$(dpkg-query -W -f '${Status}' "$1" 2>/dev/null)" = "install ok installed" ]; }

# How to become root, and what Debian's packages ask whether they may start their service.
sudo=()
policy=/usr/sbin/policy-rc.d

missing=()
for index in "${!programs[@]}"; do
    have "${programs[$index]}" || missing+=("${packages[$index]}")
done

install_packages() {
    local had_epmd=no ours=no package service
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || { echo "not installed, for want of root and sudo: ${missing[*]}" >&2; return; }
        sudo=(sudo)
    fi
    installed erlang-base && had_epmd=yes
    # Somebody else's answer stays.
    if [ ! -e "$policy" ]; then
        ours=yes
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
        "${sudo[@]}" chmod +x "$policy"
        trap '"${sudo[@]}" rm -f "$policy"' EXIT
    fi
    "${sudo[@]}" apt-get update
    for package in "${missing[@]}"; do
        # One by one: a package that this system does not have must not keep the others away.
        if ! "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package"; then
            echo "not installed: $package" >&2
            continue
        fi
        for service in ${services[$package]}; do
            case "$service" in epmd.*) [ "$had_epmd" = no ] || continue ;; esac
            if [ -d /run/systemd/system ]; then
                "${sudo[@]}" systemctl disable --now "$service" >/dev/null 2>&1
            elif [ -x "/etc/init.d/$service" ]; then
                "${sudo[@]}" "/etc/init.d/$service" stop >/dev/null 2>&1
                "${sudo[@]}" update-rc.d "$service" disable >/dev/null 2>&1
            fi
        done
    done
    if [ "$ours" = yes ]; then
        "${sudo[@]}" rm -f "$policy"
        trap - EXIT
    fi
}

if [ ${#missing[@]} -gt 0 ]; then
    if command -v apt-get >/dev/null; then
        echo "to be installed, without their services: ${missing[*]}"
        install_packages
    else
        echo "not installed, for want of apt: ${missing[*]}" >&2
    fi
fi

if ! have rumqttd; then
    echo "to be installed with cargo: rumqttd"
    # What it was released with does not compile with every Rust; then with what fits its versions today.
    rumqttd=(install rumqttd --version 0.20.0 --no-default-features)
    "${CARGO:-cargo}" "${rumqttd[@]}" --locked || "${CARGO:-cargo}" "${rumqttd[@]}" || echo "not installed: rumqttd" >&2
fi
# The library wants exactly its own version.
runner=$(sed -n 's/^gungraun = .*version = "=\([0-9.]*\)".*/\1/p' "$(dirname "$0")/../Cargo.toml")
if ! have gungraun-runner || [ "$(PATH="$PATH:$HOME/.cargo/bin" gungraun-runner --version)" != "gungraun-runner $runner" ]; then
    echo "to be installed with cargo: gungraun-runner $runner"
    "${CARGO:-cargo}" install gungraun-runner --version "$runner" --locked || echo "not installed: gungraun-runner" >&2
fi
exit 0
