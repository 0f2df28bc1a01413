#![allow(clippy::unwrap_used)]
use std::sync::Mutex;

use super::*;

const SIZE: u64 = 64 << 20;

struct Scratch {
    dir: tempfile::TempDir,
    peers: Vec<PeerSlotConfig>,
    image: ImageIdentity,
    image_path: PathBuf,
    adopt: bool,
}

impl Scratch {
    fn new(peers: &[&str]) -> Self {
        let peer = |name: &&str| PeerSlotConfig {
            name: (*name).to_owned(),
            skip_initial_sync: false,
            kind: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let image_path = dir.path().join("db.img");
        fs::write(&image_path, "image").unwrap();
        Self {
            dir,
            image_path,
            peers: peers.iter().map(peer).collect(),
            image: ImageIdentity {
                size: SIZE,
                device: 0,
                inode: 7,
                born_ns: 11,
            },
            adopt: false,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("db.blockmirror")
    }

    fn open(&self) -> Result<MetadataFile, MetadataFileError> {
        self.open_within(Duration::ZERO)
    }

    fn open_within(&self, patience: Duration) -> Result<MetadataFile, MetadataFileError> {
        let path = self.path();
        let (image, adopt) = (self.image, self.adopt);
        let wanted = Wanted {
            path: &path,
            export: "db",
            image: Some(image),
            image_path: &self.image_path,
            peers: &self.peers,
            adopt,
            entropy: 42,
            patience,
        };
        wanted.open_or_create()
    }

    /// The text of the refusal.
    #[track_caller]
    fn refused(&self) -> String {
        self.open().unwrap_err().to_string()
    }

    fn damage(&self, offset: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.path()).unwrap();
        file.write_all_at(bytes, offset).unwrap();
    }
}

#[test]
fn a_new_file_is_made_once_and_read_back() {
    let scratch = Scratch::new(&["bravo", "charlie"]);
    let first = scratch.open().unwrap();
    assert!(first.created);
    assert_eq!(first.restored.dirty_blocks(0), SIZE / 4096, "a new peer has nothing");
    let generation = first.restored.generation();
    drop(first);
    let second = scratch.open().unwrap();
    assert!(!second.created);
    assert_eq!(second.restored.generation(), generation);
    assert_eq!(second.restored.dirty_blocks(1), SIZE / 4096);
    let mut names: Vec<_> = fs::read_dir(scratch.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["db.blockmirror", "db.img"], "nothing else is left");
}

#[test]
fn its_space_is_set_aside() {
    let mut scratch = Scratch::new(&["bravo"]);
    let allocated = |scratch: &Scratch| fs::metadata(scratch.path()).unwrap().blocks() * 512;
    // One page covers the 16384 blocks of this volume; a page has two sides.
    let (header, page) = (HEADER_BYTES as u64, 2 * 4096);
    drop(scratch.open().unwrap());
    assert!(allocated(&scratch) >= header + page, "{} bytes", allocated(&scratch));
    let file = OpenOptions::new().write(true).open(scratch.path()).unwrap();
    assert_eq!(
        file.metadata().unwrap().len(),
        header,
        "the length tells what was written"
    );
    scratch.peers.push(PeerSlotConfig {
        name: "charlie".to_owned(),
        skip_initial_sync: false,
        kind: None,
    });
    drop(file);
    assert_eq!(scratch.open().unwrap().restored.dirty_blocks(1), SIZE / 4096);
    assert!(allocated(&scratch) >= header + 2 * page, "a new peer gets its own");
    // The slots of peers that are gone are free, but a peer that stays keeps its own.
    scratch.peers.remove(0);
    let space = scratch.open().unwrap().restored.space();
    assert_eq!(space, [0..header, header + page..header + 2 * page]);
}

#[test]
fn what_has_no_room_is_refused_before_anything_is_taken() {
    let file = tempfile::tempfile().unwrap();
    let (small, enormous) = (0..8192, 8192..1 << 60);
    assert_eq!(space::set_aside(&file, &[small, enormous]), Err(Errno::NOSPC));
    assert_eq!(file.metadata().unwrap().blocks() * 512, 8192);
    let error = MetadataFileError::NoSpace {
        export: "db".to_owned(),
        path: PathBuf::from("/m"),
        needed: 68_000_000,
    };
    assert!(error.to_string().contains("/m needs 68000000 bytes"), "{error}");
}

/// What is logged while `body` runs.
fn logged(body: impl FnOnce()) -> String {
    let (reader, writer) = io::pipe().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(Mutex::new(writer));
    tracing::subscriber::with_default(subscriber.finish(), body);
    io::read_to_string(reader).unwrap()
}

#[test]
fn a_peer_taken_to_be_equal_is_told_and_only_when_the_file_is_made() {
    let mut scratch = Scratch::new(&["bravo", "charlie"]);
    scratch.peers[0].skip_initial_sync = true;
    let made = logged(|| drop(scratch.open().unwrap()));
    assert!(
        made.contains("WARN") && made.contains("\"bravo\": it is taken to be equal and not copied"),
        "{made}"
    );
    assert!(!made.contains("charlie"), "{made}");
    scratch.peers.push(PeerSlotConfig {
        name: "delta".to_owned(),
        skip_initial_sync: true,
        kind: None,
    });
    let read = logged(|| {
        let restored = scratch.open().unwrap().restored;
        let dirty = [0, 1, 2].map(|peer| restored.dirty_blocks(peer));
        assert_eq!(dirty, [0, SIZE / 4096, SIZE / 4096], "delta came too late");
    });
    assert!(
        read.contains("\"delta\": skip_initial_sync has no effect any more"),
        "{read}"
    );
}

#[test]
fn a_peer_known_equal_is_clean() {
    let mut scratch = Scratch::new(&["bravo"]);
    scratch.peers[0].skip_initial_sync = true;
    assert_eq!(scratch.open().unwrap().restored.dirty_blocks(0), 0);
    assert_eq!(scratch.open().unwrap().restored.dirty_blocks(0), 0);
}

#[test]
fn half_a_file_from_an_earlier_crash_is_made_anew() {
    let scratch = Scratch::new(&["bravo"]);
    fs::write(scratch.dir.path().join("db.blockmirror.new"), "half of").unwrap();
    assert!(scratch.open().unwrap().created);
    assert!(!scratch.open().unwrap().created);
}

#[test]
fn two_processes_cannot_have_it() {
    let scratch = Scratch::new(&[]);
    let first = scratch.open().unwrap();
    assert!(matches!(scratch.open(), Err(MetadataFileError::InUse { .. })));
    drop(first);
    assert!(scratch.open().is_ok());
}

#[test]
fn a_lock_that_is_let_go_of_late_is_waited_for() {
    let scratch = Scratch::new(&[]);
    let first = scratch.open().unwrap();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(first);
    });
    assert!(scratch.open_within(Duration::from_secs(60)).is_ok());
    holder.join().unwrap();
}

#[test]
fn after_a_stop_that_was_not_in_order_the_image_is_made_durable_first() {
    let scratch = Scratch::new(&["bravo"]);
    drop(scratch.open().unwrap());
    // What is there to be made durable is gone: it is missed.
    fs::remove_file(&scratch.image_path).unwrap();
    let text = scratch.refused();
    assert!(text.contains("db.img cannot be made durable"), "{text}");
}

#[test]
fn bitmap_pages_are_found_behind_holes() {
    let mut scratch = Scratch::new(&["bravo"]);
    scratch.peers[0].skip_initial_sync = true;
    drop(scratch.open().unwrap());
    // Something that is no page, far behind: in no volume's geometry, so it is passed over.
    scratch.damage(HEADER_BYTES as u64 + (1 << 30), &[1; 5]);
    assert_eq!(scratch.open().unwrap().restored.dirty_blocks(0), 0);
    // Both sides of the first page: what was dirty is not known any more.
    scratch.damage(HEADER_BYTES as u64, &[0xaa; 8192]);
    let text = scratch.refused();
    assert!(
        text.contains("bitmap page 0") && text.contains("move the file away"),
        "{text}"
    );
}

#[test]
fn another_image_is_refused_until_it_is_adopted() {
    let mut scratch = Scratch::new(&["bravo"]);
    scratch.peers[0].skip_initial_sync = true;
    drop(scratch.open().unwrap());
    scratch.image.inode = 8;
    let text = scratch.refused();
    assert!(text.contains("another image") && text.contains("--adopt db"), "{text}");
    scratch.adopt = true;
    assert_eq!(scratch.open().unwrap().restored.dirty_blocks(0), SIZE / 4096);
    scratch.adopt = false;
    assert_eq!(
        scratch.open().unwrap().restored.dirty_blocks(0),
        SIZE / 4096,
        "it is this image's now"
    );
}

#[test]
fn files_that_are_not_ours_or_damaged_are_refused_and_left_as_they_are() {
    let foreign = Scratch::new(&[]);
    fs::write(foreign.path(), vec![b'x'; HEADER_BYTES]).unwrap();
    let text = foreign.refused();
    assert!(
        text.contains("not a blockmirror metadata file") && tells_of_equal_peers(&text),
        "{text}"
    );
    assert_eq!(fs::read(foreign.path()).unwrap(), vec![b'x'; HEADER_BYTES]);
    fs::write(foreign.path(), "short").unwrap();
    assert!(foreign.refused().contains("5 bytes long"));
    fs::write(foreign.path(), "").unwrap();
    assert!(foreign.refused().contains("0 bytes long"));

    let torn = Scratch::new(&[]);
    drop(torn.open().unwrap());
    for slot in [0, 4096] {
        torn.damage(slot + 100, &[0xff; 64]);
    }
    let text = torn.refused();
    assert!(
        text.contains("move the file away") && tells_of_equal_peers(&text),
        "{text}"
    );
}

/// A remedy that ends with a new file must not promise a copy that the configuration forbids.
fn tells_of_equal_peers(text: &str) -> bool {
    text.contains("every peer is copied in full, but for peers with skip_initial_sync = true: remove that line first")
}

/// CRC-32 as superblocks carry it.
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| {
        if crc & 1 == 1 {
            (crc >> 1) ^ 0xedb8_8320
        } else {
            crc >> 1
        }
    };
    !bytes
        .iter()
        .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[test]
fn a_file_of_a_newer_release_is_refused() {
    let scratch = Scratch::new(&[]);
    drop(scratch.open().unwrap());
    // The first superblock written is that of slot 1; the version stands behind the magic, the checksum at the end.
    let mut sector = fs::read(scratch.path()).unwrap()[4096..8192].to_vec();
    assert_eq!(
        crc(&sector[..4092]).to_le_bytes(),
        sector[4092..],
        "the test knows the checksum"
    );
    sector[8..12].copy_from_slice(&999_u32.to_le_bytes());
    let sum = crc(&sector[..4092]);
    sector[4092..].copy_from_slice(&sum.to_le_bytes());
    scratch.damage(4096, &sector);
    let text = scratch.refused();
    assert!(
        text.contains("newer release (format 999") && text.contains("upgrade this node"),
        "{text}"
    );
}

#[test]
fn a_directory_that_is_not_there_is_told() {
    let scratch = Scratch::new(&[]);
    let path = scratch.dir.path().join("no/such/file");
    let (image, peers) = (scratch.image, &scratch.peers);
    let wanted = Wanted {
        path: &path,
        export: "db",
        image: Some(image),
        image_path: &scratch.image_path,
        peers,
        adopt: false,
        entropy: 1,
        patience: Duration::ZERO,
    };
    let text = wanted.open_or_create().unwrap_err().to_string();
    assert!(text.contains("cannot be created"), "{text}");
}

#[test]
fn an_image_is_known_by_its_inode_and_birth() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("1"), dir.path().join("2"));
    fs::write(&one, "a").unwrap();
    fs::write(&two, "a").unwrap();
    let first = image_identity(&one, 1).unwrap();
    assert_eq!(first, image_identity(&one, 1).unwrap());
    assert_ne!(first, image_identity(&two, 1).unwrap());
    fs::rename(&one, dir.path().join("3")).unwrap();
    assert_eq!(
        first,
        image_identity(&dir.path().join("3"), 1).unwrap(),
        "a new name is the same image"
    );
}
