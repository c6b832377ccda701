#!/usr/bin/env bash
# Installs what building Parlor needs and the system lacks: a C++ compiler and make (RocksDB is C++), and libclang (its
# Rust bindings are generated). Does nothing where all is there.
set -euo pipefail

have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    # Not libclang-cpp, which other packages bring and bindings are not made with.
    ldconfig -p 2>/dev/null | grep -Eq 'libclang(-[0-9.]+)?\.so' && return 0
    compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null && return 0
    compgen -G '/usr/lib/llvm-*/lib/libclang-[0-9]*.so*' >/dev/null && return 0
    compgen -G '/Library/Developer/CommandLineTools/usr/lib/libclang.dylib' >/dev/null && return 0
    compgen -G '/opt/homebrew/opt/llvm/lib/libclang.dylib' >/dev/null
}

if ! command -v cargo >/dev/null; then
    echo "Parlor is built with Rust 1.95 or newer, and there is no cargo here: see https://rustup.rs" >&2
    exit 1
fi

missing=()
command -v c++ >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || missing+=(g++)
have_libclang || missing+=(libclang-dev)
[ ${#missing[@]} -eq 0 ] && exit 0

echo "Parlor needs: ${missing[*]}"
if command -v apt-get >/dev/null; then
    sudo=()
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    "${sudo[@]}" apt-get update
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
else
    cat >&2 <<'TEXT'
Install a C++ compiler and libclang, then try again:
  Fedora, RHEL   dnf install gcc-c++ clang-devel
  Arch           pacman -S gcc clang
  Alpine         apk add g++ clang-dev
  macOS          xcode-select --install   (or: brew install llvm)
TEXT
    exit 1
fi
