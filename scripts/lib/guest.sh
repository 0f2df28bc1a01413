# What guests of QEMU are made of: kernels and a root of Debian, packages unpacked and none installed, and our programs.
# Source it after common.sh.

PATH=$PATH:/usr/sbin:/sbin

# Where kernels and roots are kept between runs.
GUESTS=${XDG_CACHE_HOME:-$HOME/.cache}/blockmirror/guests
MIRROR=http://deb.debian.org/debian
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
# The root is of this suite.
ROOT_SUITE=bookworm
# Kernels: that of the root, and one that can change the keys of TLS.
SUITES=("$ROOT_SUITE" trixie-backports)
ROOT_PACKAGES=(
  bash coreutils diffutils findutils gawk grep jq procps sed util-linux mount kmod udev iproute2 iputils-ping netbase
  e2fsprogs xfsprogs fio mdadm dmsetup drbd-utils nbd-client nbd-server libnbd-bin nbdkit systemd
)
# Folders and files of a kernel's modules that scenarios may need; what they depend on beyond that is added.
GUEST_MODULES=(
  kernel/crypto kernel/arch/x86/crypto kernel/lib kernel/net/tls kernel/net/sched kernel/drivers/virtio kernel/drivers/md
  kernel/drivers/block kernel/fs/ext4 kernel/fs/jbd2 kernel/fs/xfs kernel/fs/overlayfs kernel/drivers/net/virtio_net.ko
  kernel/drivers/net/veth.ko kernel/drivers/char/virtio_console.ko
)

guest_needs() {
  local missing=()
  command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86 qemu-utils)
  command -v busybox >/dev/null || missing+=(busybox-static)
  command -v xz >/dev/null || missing+=(xz-utils)
  command -v depmod >/dev/null || missing+=(kmod)
  [ -f "$KEYRING" ] || missing+=(debian-archive-keyring)
  [ "${#missing[@]}" -eq 0 ] && return
  say "installing: ${missing[*]}"
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo)
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# apt_of SUITE COMMAND...: apt of a suite that this machine may not have; nothing is installed here, nor thought to be.
apt_of() {
  local suite=$1 command=$2 state=$GUESTS/apt-$1
  shift 2
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
  printf 'deb [signed-by=%s] %s %s main\n' "$KEYRING" "$MIRROR" "$suite" >"$state/sources.list"
  : >"$state/status"
  "$command" -q -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::status="$state/status" \
    -o Dir::State::Lists="$state/lists" -o Dir::Cache="$state/cache" -o APT::Sandbox::User=root \
    -o Acquire::Languages=none -o Debug::NoLocking=1 "$@"
}

# unpack FOLDER FILE...: packages, one over the other; links to folders stay links.
unpack() {
  local folder=$1 package
  shift
  for package in "$@"; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink --no-same-owner -C "$folder"
  done
}

# depends_of SUITE PACKAGE: the packages its files are in.
depends_of() {
  apt_of "$1" apt-cache depends "$2" | sed -n 's/^ *Depends: \(linux-\(image\|binary\|modules\)-[0-9].*\)/\1/p'
}

# fetch_kernel SUITE: sets KERNEL to a folder of its newest one: vmlinuz and modules/.
fetch_kernel() {
  local suite=$1 image packages files
  KERNEL=$GUESTS/kernel-$suite
  [ -f "$KERNEL/vmlinuz" ] && return
  rm -rf "$KERNEL"
  files=$KERNEL/files
  mkdir -p "$KERNEL/packages" "$files"
  apt_of "$suite" apt-get update >/dev/null
  image=$(depends_of "$suite" linux-image-amd64 | grep -m1 '^linux-image-') || fail "$suite has no kernel"
  mapfile -t packages < <(printf '%s\n' "$image" && depends_of "$suite" "$image")
  say "downloading: ${packages[*]}"
  (cd "$KERNEL/packages" && apt_of "$suite" apt-get download "${packages[@]}" >/dev/null)
  unpack "$files" "$KERNEL"/packages/*.deb
  # Newer packages have everything below usr/lib/modules.
  [ -d "$files/lib/modules" ] || mv "$files/usr/lib" "$files/lib"
  mkdir "$KERNEL/lib"
  mv "$files/lib/modules" "$KERNEL/lib"
  find "$KERNEL/lib" -name '*.ko.xz' -exec xz -d {} +
  depmod -b "$KERNEL" "$(ls "$KERNEL/lib/modules")" 2>/dev/null
  find "$files/boot" "$KERNEL/lib" -name 'vmlinuz*' -exec mv {} "$KERNEL/vmlinuz" \; 2>/dev/null || true
  rm -rf "$KERNEL/packages" "$files"
  [ -f "$KERNEL/vmlinuz" ] || fail "no kernel is in ${packages[*]}"
}

# fetch_root: sets DISK to an image of the root, made when there is none of just these packages.
fetch_root() {
  local mark folder
  mark=$(printf '%s\n' "$ROOT_SUITE" "${ROOT_PACKAGES[@]}" | cat - <(declare -f fetch_root unpack) | cksum | cut -d' ' -f1)
  DISK=$GUESTS/root-$mark.ext4
  [ -f "$DISK" ] && return
  say "making the root of the guests: ${ROOT_PACKAGES[*]}"
  apt_of "$ROOT_SUITE" apt-get update >/dev/null
  apt_of "$ROOT_SUITE" apt-get install -y --no-install-recommends --download-only "${ROOT_PACKAGES[@]}" >/dev/null
  folder=$(mktemp -d "$GUESTS/root.XXXXXX")
  chmod 755 "$folder"
  mkdir -p "$folder"/{etc,dev,proc,sys,run,tmp,mnt,var/lib} "$folder"/usr/{bin,sbin,lib,lib64}
  ln -s usr/bin usr/sbin usr/lib usr/lib64 "$folder"
  unpack "$folder" "$GUESTS/apt-$ROOT_SUITE"/cache/archives/*.deb
  rm -rf "$folder"/usr/share/{doc,man,locale,info,perl,icu} "$folder"/usr/lib/python3* "$folder"/usr/lib/x86_64-linux-gnu/perl*
  ln -s bash "$folder/usr/bin/sh"
  printf 'root:x:0:0::/root:/bin/bash\n' >"$folder/etc/passwd"
  printf '%s\n' root:x:0: tty:x:5: disk:x:6: kmem:x:15: >"$folder/etc/group"
  printf '127.0.0.1 localhost\n10.0.0.1 alpha\n10.0.0.2 bravo\n' >"$folder/etc/hosts"
  rm -f "$GUESTS"/root-*.ext4
  mke2fs -q -t ext4 -O ^has_journal -d "$folder" "$DISK.new" 1G
  rm -rf "$folder" "$GUESTS/apt-$ROOT_SUITE/cache/archives"
  mv "$DISK.new" "$DISK"
}

# put_file ROOT FILE PLACE: with the libraries it names.
put_file() {
  local root=$1 file=$2 library
  install -D -m 755 "$file" "$root$3"
  { ldd "$file" 2>/dev/null || true; } | grep -o '/[^ ]*' | sort -u | while read -r library; do
    install -D -m 755 "$library" "$root$library"
  done
}

# put_modules ROOT: those of KERNEL, with what they depend on.
put_modules() {
  local root=$1 version from wanted
  version=$(ls "$KERNEL/lib/modules")
  from=$KERNEL/lib/modules/$version
  mkdir -p "$root/lib/modules/$version"
  (
    cd "$from"
    for wanted in "${GUEST_MODULES[@]}"; do find "$wanted" -name '*.ko' 2>/dev/null || true; done >"$root.modules"
    # A line of modules.dep: a module, and everything below it.
    awk -F: 'NR == FNR { wanted[$1]; next } $1 in wanted { print $1; n = split($2, below, " "); for (i = 1; i <= n; i++) print below[i] }' \
      "$root.modules" modules.dep | sort -u | tar -c -T - | tar -x -C "$root/lib/modules/$version"
    find . -maxdepth 1 \( -name 'modules.builtin*' -o -name modules.order \) -exec cp -t "$root/lib/modules/$version" {} +
  )
  rm -f "$root.modules"
  depmod -b "$root" "$version" 2>/dev/null
}

# make_start FOLDER: FOLDER/vmlinuz and FOLDER/start.cpio, of KERNEL, BINARIES and HERE/pki: what a guest has beside its root.
make_start() {
  local folder=$1 root=$1/start program
  mkdir -p "$root"/{bin,dev,proc,sys,tmp,disk,new,more/usr/bin,more/usr/lib,more/usr/lib64}
  ln -s usr/bin usr/lib usr/lib64 "$root/more"
  install -m 755 "$(command -v busybox)" "$root/bin/busybox"
  for program in "$BINARIES"/*; do put_file "$root/more" "$program" "/usr/bin/$(basename "$program")"; done
  rm "$root/more/usr/bin/kernel"
  # What debuggers need only takes the guest's memory.
  strip "$root/more/usr/bin/"*
  put_modules "$root"
  cp -r "$HERE/pki" configs docs "$root/more"
  # Tests make certificates where the tree is; there is no openssl in the guest.
  mkdir -p "$root/more$ROOT/scripts" "$root/more$ROOT/blockmirror-server"
  printf '#!/bin/sh\ncp -r /pki/. "$1"\n' >"$root/more$ROOT/scripts/pki"
  chmod 755 "$root/more$ROOT/scripts/pki"
  install -m 755 tests/kernel/guest/init "$root/init"
  install -m 755 tests/kernel/guest/agent "$root/more/usr/bin/agent"
  install -D -m 755 -t "$root/more/scenarios" tests/kernel/guest/{point,tls,writer}
  cp "$KERNEL/vmlinuz" "$folder"
  (cd "$root" && find . | busybox cpio -o -H newc -R 0:0 2>/dev/null) >"$folder/start.cpio"
  rm -rf "$root"
}
