#!/bin/sh
# Turns a bare Debian container into "a fresh Debian with rustup", which is where README.md starts:
# a C compiler, git, and rustup. Everything else is cargo xtask's to install. Needs root.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install -y --no-install-recommends ca-certificates curl gcc git libc6-dev
if ! command -v rustup >/dev/null && ! [ -x "$HOME/.cargo/bin/rustup" ]; then
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
        sh -s -- -y --no-modify-path --default-toolchain none
fi
PATH="$HOME/.cargo/bin:$PATH"
# Later steps of a workflow find cargo here.
if [ -n "${GITHUB_PATH:-}" ]; then
    echo "$HOME/.cargo/bin" >>"$GITHUB_PATH"
fi
cd "$(dirname "$0")/.."
# Installs what rust-toolchain.toml names.
rustup show active-toolchain || rustup toolchain install
cargo --version
