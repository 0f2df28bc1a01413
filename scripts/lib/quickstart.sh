# The parts of scripts/quickstart: daemons, files, figures.

MIB=$((1 << 20))
GIB=$((1 << 30))
SIZE=$((2 * GIB))
# Where on the volume the second file system goes; below it is fio's.
SECOND_OFFSET=$((GIB + 512 * MIB))
# How long anything may take before the script gives up.
PATIENCE=60

HERE=$(mktemp -d "${TMPDIR:-/tmp}/blockmirror-quickstart.XXXXXX")
declare -A DAEMONS=()

tidy_up() {
  local status=$? name
  for name in "${!DAEMONS[@]}"; do
    kill -9 "${DAEMONS[$name]}" 2>/dev/null || true
    wait "${DAEMONS[$name]}" 2>/dev/null || true
    if [ "$status" -ne 0 ] && [ -s "$HERE/$name.log" ]; then
      printf '\n-- the last lines of %s --\n' "$name" >&2
      tail -n 15 "$HERE/$name.log" >&2
    fi
  done
  rm -rf "$HERE"
}
trap tidy_up EXIT
trap 'exit 130' INT TERM

free_port() {
  local port
  for _ in $(seq 50); do
    port=$((20000 + RANDOM))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      printf '%s\n' "$port"
      return
    fi
  done
  fail "no free TCP port was found"
}

write_configs() {
  local port
  port=$(free_port)
  PEER_URI="nbd://127.0.0.1:$port/db"
  URI="nbd+unix:///db?socket=$HERE/alpha.nbd"
  cat >"$HERE/alpha.toml" <<END
name   = "alpha"
admin  = "$HERE/alpha.sock"
listen = ["unix:$HERE/alpha.nbd"]

[[resource]]
name = "db"
[[resource.volume]]
export = "db"
image  = "$HERE/alpha.img"
size   = "$((SIZE / GIB))GiB"
[[resource.peer]]
name = "bravo"
uri  = "$PEER_URI"
mode = "sync"
on_disconnect = "continue"
END
  cat >"$HERE/bravo.toml" <<END
name   = "bravo"
admin  = "$HERE/bravo.sock"
listen = ["tcp:127.0.0.1:$port"]

[[resource]]
name   = "db"
mirror = false
[[resource.volume]]
export = "db"
image  = "$HERE/bravo.img"
size   = "$((SIZE / GIB))GiB"
END
}

answers() { "$BIN/blockmirror" --admin "$HERE/$1.sock" status --json >/dev/null 2>&1; }

# start NAME: start the daemon and wait until it answers.
start() {
  "$BIN/blockmirror-server" --config "$HERE/$1.toml" >>"$HERE/$1.log" 2>&1 &
  DAEMONS[$1]=$!
  await "$1 answers" answers "$1"
}

stop_hard() {
  kill -9 "${DAEMONS[$1]}"
  wait "${DAEMONS[$1]}" 2>/dev/null || true
  unset "DAEMONS[$1]"
}

stop() {
  kill -TERM "${DAEMONS[$1]}"
  wait "${DAEMONS[$1]}" || fail "$1 did not end cleanly"
  unset "DAEMONS[$1]"
}

# await TEXT COMMAND...: until the command succeeds.
await() {
  local what=$1 until=$((SECONDS + PATIENCE))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$until" ] || fail "waited $PATIENCE s: $what"
    sleep 0.05
  done
}

# peer_field JQ_PATH: of alpha's only peer.
peer_field() {
  "$BIN/blockmirror" --admin "$HERE/alpha.sock" status --json | jq -r ".resources[0].volumes[0].peers[0]$1"
}

peer_is() { [ "$(peer_field .replication_state)" = "$1" ] && [ "$(peer_field .dirty_bytes)" = 0 ]; }
peer_is_not() { [ "$(peer_field .replication_state)" != "$1" ]; }

# make_tree FOLDER MIB [reversed]: real files of this system, about as many MiB.
make_tree() {
  local folder=$1 left=$2 source size sources=(/usr/include /usr/share/perl /usr/share/zoneinfo /usr/share/doc
    /usr/share/man /usr/share/locale /usr/lib/python3 /usr/bin /usr/sbin /usr/share)
  [ "${3:-}" = reversed ] && mapfile -t sources < <(printf '%s\n' "${sources[@]}" | tac)
  mkdir "$folder"
  for source in "${sources[@]}"; do
    [ -d "$source" ] || continue
    size=$(du -sm "$source" | cut -f1)
    if [ "$size" -le "$left" ]; then
      mkdir -p "$folder$source"
      cp -a "$source/." "$folder$source/"
      left=$((left - size))
    fi
  done
  [ -n "$(find "$folder" -type f -print -quit)" ] || fail "no files were found to build a file system from"
}

# timed VARIABLE COMMAND...: run it, and keep the seconds it took.
timed() {
  local -n took=$1
  local begun=${EPOCHREALTIME/./}
  shift
  "$@"
  took=$(awk -v us=$((${EPOCHREALTIME/./} - begun)) 'BEGIN {printf "%.1f", us / 1e6}')
}

run_fio() {
  local name=$1
  shift
  fio --name="$name" --ioengine=nbd --uri="$URI" --iodepth=32 --verify_state_save=0 --output-format=json --output="$HERE/$name.json" "$@" \
    || fail "fio found an error; see above"
  [ "$(fio_figure "$name" .error)" = 0 ] || fail "fio reports error $(fio_figure "$name" .error)"
}

fio_figure() { jq -r ".jobs[0]$2 | floor" "$HERE/$1.json"; }

mib() { awk -v bytes="$1" 'BEGIN {printf "%.1f", bytes / 1048576}'; }

# A bar that follows the resync to its end.
watch_resync() {
  local until=$((SECONDS + PATIENCE)) state dirty total done_part rate bar
  total=$DIRTY
  while :; do
    IFS=$'\t' read -r state dirty rate < <(
      peer_field ' | [.replication_state, .dirty_bytes, (.resync.bytes_per_second // .last_resync.bytes_per_second // 0)] | @tsv'
    )
    [ "$dirty" -gt "$total" ] && total=$dirty
    if [ "$state" = Off ]; then
      [ "$SECONDS" -lt "$until" ] || fail "alpha did not find bravo again in $PATIENCE s"
      printf '\r   connecting ...  '
      sleep 0.05
      continue
    fi
    done_part=$(((total - dirty) * 40 / total))
    bar=$(printf '%*s' "$done_part" '' | tr ' ' '#')
    printf '\r   [%-40s] %s of %s MiB dirty copied, %s MiB/s  ' \
      "$bar" "$(mib $((total - dirty)))" "$(mib "$total")" "$(mib "$rate")"
    if [ "$state" = Established ] && [ "$dirty" = 0 ]; then break; fi
    [ "$SECONDS" -lt "$until" ] || fail "the resync did not end in $PATIENCE s"
    sleep 0.02
  done
  printf '\n'
}
