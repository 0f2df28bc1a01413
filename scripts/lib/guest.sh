# Guests of QEMU: a kernel of Debian, a root of busybox and our programs. Source it after common.sh.

# Where kernels are kept between runs.
KERNELS=${XDG_CACHE_HOME:-$HOME/.cache}/blockmirror/kernels
MIRROR=http://deb.debian.org/debian
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
GUEST_MEMORY=1536
# Programs of this machine that guests have too.
GUEST_PROGRAMS=(nbdinfo nbdcopy nbdkit)
# Modules of the kernel that scenarios may need, with everything below.
GUEST_MODULES=(kernel/crypto kernel/arch/x86/crypto kernel/lib/crypto kernel/net/tls)

guest_needs() {
  local missing=()
  command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
  command -v busybox >/dev/null || missing+=(busybox-static)
  command -v xz >/dev/null || missing+=(xz-utils)
  [ -f "$KEYRING" ] || missing+=(debian-archive-keyring)
  [ "${#missing[@]}" -eq 0 ] && return
  say "installing: ${missing[*]}"
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# apt_of SUITE COMMAND...: apt of a suite that this machine may not have; nothing is installed.
apt_of() {
  local suite=$1 command=$2 state=$KERNELS/apt-$1
  shift 2
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
  printf 'deb [signed-by=%s] %s %s main\n' "$KEYRING" "$MIRROR" "$suite" >"$state/sources.list"
  "$command" -q -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=- \
    -o Dir::State::Lists="$state/lists" -o Dir::Cache="$state/cache" -o APT::Sandbox::User=root \
    -o Acquire::Languages=none "$@"
}

# depends_of SUITE PACKAGE: the packages its files are in.
depends_of() {
  apt_of "$1" apt-cache depends "$2" | sed -n 's/^ *Depends: \(linux-\(image\|binary\|modules\)-[0-9].*\)/\1/p'
}

# fetch_kernel SUITE: sets KERNEL to a folder of its newest one: vmlinuz and modules/.
fetch_kernel() {
  local suite=$1 image packages package files
  KERNEL=$KERNELS/$suite
  [ -f "$KERNEL/vmlinuz" ] && return
  rm -rf "$KERNEL"
  files=$KERNEL/files
  mkdir -p "$KERNEL/packages" "$files"
  apt_of "$suite" apt-get update >/dev/null
  image=$(depends_of "$suite" linux-image-amd64 | grep -m1 '^linux-image-') || fail "$suite has no kernel"
  mapfile -t packages < <(printf '%s\n' "$image" && depends_of "$suite" "$image")
  say "downloading: ${packages[*]}"
  (cd "$KERNEL/packages" && apt_of "$suite" apt-get download "${packages[@]}" >/dev/null)
  for package in "$KERNEL"/packages/*.deb; do dpkg-deb -x "$package" "$files"; done
  # Newer packages have everything below usr/lib/modules.
  [ -d "$files/lib/modules" ] || mv "$files/usr/lib" "$files/lib"
  mv "$files/lib/modules" "$KERNEL/modules"
  find "$files/boot" "$KERNEL/modules" -name 'vmlinuz*' -exec mv {} "$KERNEL/vmlinuz" \; 2>/dev/null || true
  rm -rf "$KERNEL/packages" "$files"
  [ -f "$KERNEL/vmlinuz" ] || fail "no kernel is in ${packages[*]}"
}

# put_file ROOT FILE PLACE: with the libraries it names.
put_file() {
  local root=$1 file=$2 library
  install -D -m 755 "$file" "$root$3"
  { ldd "$file" 2>/dev/null || true; } | grep -o '/[^ ]*' | sort -u | while read -r library; do
    install -D -m 755 "$library" "$root$library"
  done
}

# put_modules ROOT WITHOUT
put_modules() {
  local root=$1 without=$2 version from folder
  version=$(ls "$KERNEL/modules")
  from=$KERNEL/modules/$version
  for folder in "${GUEST_MODULES[@]}"; do
    [ -d "$from/$folder" ] || continue
    mkdir -p "$root/lib/modules/$version/$folder"
    cp -r "$from/$folder/." "$root/lib/modules/$version/$folder"
  done
  find "$root/lib/modules" -name "$without.ko*" -delete
  find "$root/lib/modules" -name '*.ko.xz' -exec xz -d {} +
  busybox depmod -b "$root" "$version"
}

# make_root FOLDER WITHOUT: FOLDER/root.cpio, of KERNEL, BINARIES and HERE/pki.
make_root() {
  local folder=$1 without=$2 root=$1/root program plugin
  mkdir -p "$root"/{bin,dev,proc,sys,tmp,run,etc,usr/bin,lib/modules}
  install -m 755 "$(command -v busybox)" "$root/bin/busybox"
  for program in "${GUEST_PROGRAMS[@]}"; do put_file "$root" "$(command -v "$program")" "/usr/bin/$program"; done
  plugin=$(nbdkit --dump-config | sed -n 's/^plugindir=//p')/nbdkit-memory-plugin.so
  put_file "$root" "$plugin" "$plugin"
  for program in "$BINARIES"/*; do
    put_file "$root" "$program" "/usr/bin/$(basename "$program")"
  done
  put_modules "$root" "$without"
  cp -r "$HERE/pki" "$root/pki"
  # Tests make certificates where the tree is; there is no openssl in the guest.
  mkdir -p "$root$ROOT/scripts" "$root$ROOT/blockmirror-server"
  printf '#!/bin/sh\ncp -r /pki/. "$1"\n' >"$root$ROOT/scripts/pki"
  chmod 755 "$root$ROOT/scripts/pki"
  cp tests/kernel/* "$root/"
  chmod 755 "$root/init"
  printf 'root:x:0:0::/:/bin/sh\n' >"$root/etc/passwd"
  printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
  (cd "$root" && find . | busybox cpio -o -H newc -R 0:0 2>/dev/null) >"$folder/root.cpio"
}

# run_guest FOLDER SECONDS WORDS: WORDS are for its kernel's command line. True when it says that everything passed.
run_guest() {
  local folder=$1 seconds=$2 words=$3 log=$1/serial.log status=0
  timeout --kill-after=5 "$seconds" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$GUEST_MEMORY" -nographic -no-reboot \
    -nic none -kernel "$KERNEL/vmlinuz" -initrd "$folder/root.cpio" \
    -append "console=ttyS0 quiet panic=-1 random.trust_cpu=on $words" </dev/null >"$log" 2>&1 || status=$?
  tr -d '\r' <"$log" | sed -n 's/^RESULT /  /p'
  if tr -d '\r' <"$log" | grep -q '^RESULT all passed$'; then return 0; fi
  [ "$status" -eq 124 ] && say "  not done within $seconds s"
  say "-- the last lines of the guest --"
  tail -n 60 "$log"
  return 1
}
