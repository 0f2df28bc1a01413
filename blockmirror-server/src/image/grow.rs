//! Images that get another size while they are served.

use std::os::fd::AsFd;

use rustix::fs::{FallocateFlags, FileType, SeekFrom};

use super::{ExtentKind, Image, ImageError};

impl Image {
    /// Makes the image `size` bytes long, durably; a block device has to be that long already. Never smaller. Blocks for
    /// as long as the file system takes.
    ///
    /// # Errors
    /// There is no room, the device is too small, or the size is no multiple of what direct I/O needs.
    pub fn grow(&mut self, size: u64) -> Result<(), ImageError> {
        if size <= self.size {
            return Ok(());
        }
        let failed = |error: std::io::Error| ImageError::Io {
            operation: "grow",
            offset: size,
            error: error.to_string(),
        };
        if !size.is_multiple_of(self.leg.alignment.transfer) {
            let text = format!("{size} is no multiple of {} bytes", self.leg.alignment.transfer);
            return Err(failed(std::io::Error::other(text)));
        }
        let fd = self.leg.file.as_fd();
        let stat = rustix::fs::fstat(fd).map_err(|error| failed(error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice {
            let end = rustix::fs::seek(fd, SeekFrom::End(0)).map_err(|error| failed(error.into()))?;
            if end < size {
                let text = format!("the device has {end} bytes: make it larger first");
                return Err(failed(std::io::Error::other(text)));
            }
        } else {
            if self.leg.keep_allocated {
                let allocated = rustix::fs::fallocate(fd, FallocateFlags::empty(), self.size, size - self.size);
                allocated.map_err(|error| match error {
                    rustix::io::Errno::NOSPC => ImageError::NoSpace,
                    error => failed(error.into()),
                })?;
            }
            // The file may be larger already: an earlier attempt that other nodes did not follow.
            if (stat.st_size as u64) < size {
                rustix::fs::ftruncate(fd, size).map_err(|error| failed(error.into()))?;
            }
            rustix::fs::fsync(fd).map_err(|error| failed(error.into()))?;
        }
        self.size = size;
        Ok(())
    }

    /// Whether the image holds anything at and beyond `size`: no data there, not even zeroes that were written. Of a
    /// device, or where the file system cannot tell, there always is.
    pub fn is_unused_from(&self, size: u64) -> bool {
        let extent = self.next_data(size);
        size < self.size && extent.kind == ExtentKind::Hole && extent.end == self.size
    }

    /// Cuts the image off at `size` bytes, durably: nothing is beyond. A device keeps its bytes. Blocks for as long as the
    /// file system takes.
    ///
    /// # Errors
    /// The operating system refuses; the file is as long as it was, and the image as short as it is to be.
    pub fn cut(&mut self, size: u64) -> Result<(), ImageError> {
        self.size = self.size.min(size);
        let failed = |error: rustix::io::Errno| ImageError::Io {
            operation: "cut",
            offset: size,
            error: error.to_string(),
        };
        let fd = self.leg.file.as_fd();
        let stat = rustix::fs::fstat(fd).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            rustix::fs::ftruncate(fd, self.size).map_err(failed)?;
            rustix::fs::fsync(fd).map_err(failed)?;
        }
        Ok(())
    }

    /// An image of `size` bytes that holds nothing, in the place of one that is gone.
    ///
    /// # Errors
    /// The system has no memory for it.
    pub fn placeholder(size: u64) -> Result<Image, super::OpenError> {
        Image::open(&super::ImageOptions {
            place: super::ImagePlace::Memory,
            size: Some(size),
            io: super::IoMode::Buffered,
            read_only: false,
            preallocate: false,
        })
    }
}
