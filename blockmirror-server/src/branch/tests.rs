#![allow(clippy::single_range_in_vec_init)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use proptest::prelude::*;

use super::file::Saved;
use super::*;

const SIZE: u64 = 64 * 4096 + 100;

fn place(directory: &Path) -> BranchPlace {
    BranchPlace {
        directory: directory.to_owned(),
        node: "alpha".to_owned(),
    }
}

fn new_branch(directory: &Path, generation: u64) -> BranchFile {
    BranchFile::create(&place(directory), "db", generation, SIZE, "a test").unwrap()
}

/// Save a range as the data thread does.
fn save(branch: &mut BranchFile, range: std::ops::Range<u64>, saved: Saved<'_>) {
    let (at, bytes, source) = branch.record(&range, saved);
    branch.handle().unwrap().write_all_at(&bytes, at).unwrap();
    branch.keep(range, source);
}

fn end(branch: &mut BranchFile) {
    let (at, bytes) = branch.last_record();
    branch.handle().unwrap().write_all_at(&bytes, at).unwrap();
}

#[test]
fn what_is_saved_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut branch = new_branch(dir.path(), 0xabc);
    assert_eq!(branch.missing(&(5000..5001)), [4096..8192]);
    assert_eq!(
        branch.missing(&(SIZE - 1..SIZE)),
        [64 * 4096..SIZE],
        "the last block is short"
    );
    assert!(
        branch.missing(&(65 * 4096..66 * 4096)).is_empty(),
        "there was nothing then"
    );
    save(&mut branch, 4096..12288, Saved::Data(&[7; 8192]));
    save(&mut branch, 12288..20480, Saved::Hole);
    save(&mut branch, 64 * 4096..SIZE, Saved::Lost);
    // What comes later is of the new history.
    save(&mut branch, 8192..16384, Saved::Data(&[9; 8192]));
    assert_eq!(branch.missing(&(0..24576)), [0..4096, 20480..24576]);
    let path = branch.path().to_owned();
    assert!(path.to_str().unwrap().contains("db-0000000000000abc-"));
    assert!(matches!(load(&path), Err(BranchError::InUse)));
    assert_eq!(remove(&path).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    end(&mut branch);
    let kept = branch.index().clone();
    // The kernel may let go of the engine's handle later.
    let handle = branch.handle().unwrap();
    drop(branch);
    let (file, replayed) = load(&path).unwrap();
    drop(handle);
    assert_eq!((&replayed.index, replayed.finished), (&kept, true));
    assert_eq!(kept.bytes(), 16384 + 100);
    let pieces = replayed.index.look(8000..13000);
    let Source::File(at) = pieces[0].source else {
        panic!("{pieces:?}")
    };
    let mut bytes = [0; 292];
    file.read_exact_at(&mut bytes, at).unwrap();
    assert_eq!((pieces[0].range.clone(), bytes), (8000..12288, [7; 292]));
    assert_eq!(
        pieces[1],
        Piece {
            range: 12288..13000,
            source: Source::Zero
        }
    );
    assert_eq!(
        remove(&path).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "it is being read"
    );
    drop(file);
    let found = list(&[dir.path().to_owned()]);
    assert_eq!(
        (found.len(), found[0].generation, &found[0].volume[..]),
        (1, 0xabc, "db")
    );
    remove(&path).unwrap();
    assert!(list(&[dir.path().to_owned()]).is_empty());
}

#[test]
fn one_that_was_cut_short_goes_on_where_it_was_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut branch = new_branch(dir.path(), 1);
    save(&mut branch, 0..4096, Saved::Data(&[1; 4096]));
    let whole = fs::metadata(branch.path()).unwrap().len();
    save(&mut branch, 4096..8192, Saved::Data(&[2; 4096]));
    let path = branch.path().to_owned();
    drop(branch);
    for torn in [whole + 4, whole + 60, whole + 4095] {
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(torn)
            .unwrap();
        let mut branch = BranchFile::resume(dir.path(), "db", &[]).unwrap().unwrap();
        assert_eq!(branch.index().bytes(), 4096);
        assert_eq!(fs::metadata(&path).unwrap().len(), whole);
        assert_eq!(branch.missing(&(0..8192)), [4096..8192]);
        save(&mut branch, 4096..8192, Saved::Data(&[3; 4096]));
    }
    let mut branch = BranchFile::resume(dir.path(), "db", &[]).unwrap().unwrap();
    assert_eq!(branch.index().bytes(), 8192);
    assert!(BranchFile::resume(dir.path(), "log", &[]).unwrap().is_none());
    end(&mut branch);
    drop(branch);
    assert!(
        BranchFile::resume(dir.path(), "db", &[]).unwrap().is_none(),
        "it is complete"
    );
}

#[test]
fn data_that_is_not_what_was_written_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut branch = new_branch(dir.path(), 1);
    save(&mut branch, 0..4096, Saved::Data(&[1; 4096]));
    save(&mut branch, 4096..8192, Saved::Data(&[2; 4096]));
    let path = branch.path().to_owned();
    let length = fs::metadata(&path).unwrap().len();
    drop(branch);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0], length - 7).unwrap();
    assert_eq!(load(&path).unwrap().1.index.bytes(), 4096);
    file.write_all_at(&[0xff], 20).unwrap();
    assert!(matches!(load(&path), Err(BranchError::Damaged)));
    file.write_all_at(&[0], 0).unwrap();
    assert!(matches!(load(&path), Err(BranchError::Foreign)));
}

#[test]
fn names_of_volumes_become_names_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("../a b/{}", "x".repeat(300));
    let make = || BranchFile::create(&place(dir.path()), &name, 1, SIZE, "").unwrap();
    let (one, two) = (make(), make());
    assert_ne!(one.path(), two.path());
    assert_eq!(one.path().parent().unwrap(), dir.path());
    assert_eq!(one.header().volume, name);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        changes in prop::collection::vec((0_usize..16_000, any::<u8>()), 0..8),
        length in 0_usize..16_000,
        foreign in prop::collection::vec(any::<u8>(), 0..9000),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut branch = new_branch(dir.path(), 5);
        save(&mut branch, 0..8192, Saved::Data(&[1; 8192]));
        save(&mut branch, 8192..20_480, Saved::Hole);
        end(&mut branch);
        let mut bytes = fs::read(branch.path()).unwrap();
        bytes.truncate(length);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(replayed) = replay(&bytes[..]) {
            prop_assert!(replayed.end as usize <= bytes.len());
            prop_assert!(replayed.index.bytes() <= SIZE);
        }
        let _ = replay(&foreign[..]);
    }

    #[test]
    fn the_first_record_of_a_block_counts(parts in prop::collection::vec((0_u64..100, 1_u64..30), 0..40)) {
        let mut index = Index::default();
        let mut model = [None; 130];
        for (number, (start, length)) in parts.into_iter().enumerate() {
            let base = 1000 * number as u64;
            index.insert(start..start + length, Source::File(base));
            for byte in start..start + length {
                model[byte as usize].get_or_insert(base + byte - start);
            }
        }
        let mut at = 0;
        for piece in index.look(0..130) {
            prop_assert_eq!(piece.range.start, at);
            for byte in piece.range.clone() {
                let known = match piece.source {
                    Source::File(from) => Some(from + byte - piece.range.start),
                    _ => None,
                };
                prop_assert_eq!(known, model[byte as usize]);
            }
            at = piece.range.end;
        }
        prop_assert_eq!(at, 130);
        let known = model.iter().flatten().count() as u64;
        prop_assert_eq!(index.bytes(), known);
        let missing: u64 = index.missing(0..130).iter().map(|gap| gap.end - gap.start).sum();
        prop_assert_eq!(missing, 130 - known);
    }
}

#[test]
fn what_is_no_branch_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.branch"), b"something else").unwrap();
    fs::create_dir(dir.path().join("y.branch")).unwrap();
    drop(new_branch(dir.path(), 3));
    File::create(dir.path().join("z")).unwrap();
    assert_eq!(list(&[dir.path().to_owned(), dir.path().to_owned()]).len(), 1);
    assert!(list(&[dir.path().join("none")]).is_empty());
}
