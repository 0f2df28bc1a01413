# Shared by the scripts: source it after `set -euo pipefail`. Every script runs from the root of the tree.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$ROOT"
# A Rust that an earlier run of install-deps has put there.
if ! command -v cargo >/dev/null && [ -d "${CARGO_HOME:-$HOME/.cargo}/bin" ]; then
  PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi

say() { printf '%s\n' "$*"; }

# step TEXT: what comes next, with the time since the start.
step() { printf '\n== %s  [%d s]\n' "$*" "$SECONDS"; }

# fail TEXT: the reason, and the end.
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# The folder of release binaries.
release_folder() { printf '%s\n' "${CARGO_TARGET_DIR:-$ROOT/target}/release"; }

# The folder of binaries without optimisation.
debug_folder() { printf '%s\n' "${CARGO_TARGET_DIR:-$ROOT/target}/debug"; }
