//! Where memory comes from that devices share (dma-bufs).

use super::ioctl;
use crate::platform::memory::page_size;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// An allocator of dma-bufs.
#[derive(Debug)]
pub struct Heap {
    file: OwnedFd,
    path: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A heap of /dev/dma_heap.
    DmaHeap,
    /// vgem, the kernel's graphics card without a card, for rigs.
    Vgem,
}

/// Heaps of ordinary memory that every device of a board reaches, by the names that kernels give them.
const HEAPS: [&str; 2] = ["/dev/dma_heap/system", "/dev/dma_heap/linux,cma"];

impl Heap {
    /// The first allocator that there is: a dma-buf heap, or vgem.
    ///
    /// # Errors
    /// What was tried.
    pub fn find() -> Result<Self, String> {
        let mut tried = Vec::new();
        let vgem = vgem(Path::new("/sys/class/drm"));
        let heaps = HEAPS.into_iter().map(|path| (PathBuf::from(path), Kind::DmaHeap));
        for (path, kind) in heaps.chain(vgem.map(|path| (path, Kind::Vgem))) {
            match rustix::fs::open(&path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
                Ok(file) => return Ok(Self { file, path, kind }),
                Err(error) => tried.push(format!("{}: {error}", path.display())),
            }
        }
        Err(format!("no allocator of dma-bufs: {}; no vgem", tried.join(", ")))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A dma-buf of `bytes`, rounded up to whole pages, zeroed.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn allocate(&self, bytes: usize) -> io::Result<OwnedFd> {
        let bytes = bytes.checked_next_multiple_of(page_size()).ok_or(Errno::NOMEM)?;
        match self.kind {
            Kind::DmaHeap => ioctl::allocate_from_heap(&self.file, bytes),
            Kind::Vgem => self.dumb(bytes),
        }
    }

    /// A picture of a page's width and one byte a pixel, as a dma-buf.
    fn dumb(&self, bytes: usize) -> io::Result<OwnedFd> {
        let mut picture = ioctl::DRM_CREATE_DUMB.zeroed();
        let rows = u32::try_from(bytes / page_size()).map_err(|_| Errno::NOMEM)?;
        (picture.width, picture.height, picture.bpp) = (page_size() as u32, rows, 8);
        ioctl::DRM_CREATE_DUMB.call(&self.file, &mut picture)?;
        let shared = ioctl::share_picture(&self.file, picture.handle);
        // The dma-buf keeps the memory; the handle only counts.
        let mut handle = picture.handle;
        ioctl::DRM_DESTROY_DUMB.call(&self.file, &mut handle)?;
        shared
    }
}

/// The card of vgem, where it is loaded: `cards` is where the kernel lists graphics cards.
fn vgem(cards: &Path) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(cards).ok()?.flatten().map(|card| card.path()).collect();
    entries.sort();
    let is_vgem = |card: &PathBuf| {
        let name = card.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"card"));
        let device = card.canonicalize().unwrap_or_default();
        name && device.components().any(|part| part.as_os_str() == "vgem")
    };
    let card = entries.into_iter().find(is_vgem)?;
    Some(Path::new("/dev/dri").join(card.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vgem_is_found_by_its_device() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        for device in ["pci/gpu/drm/card0", "platform/vgem/drm/card1", "platform/vgem/drm/renderD128"] {
            std::fs::create_dir_all(root.join("devices").join(device)).expect("a folder");
        }
        let class = root.join("class");
        std::fs::create_dir(&class).expect("a folder");
        assert_eq!(vgem(&class), None);
        for (name, device) in [
            ("card0", "pci/gpu/drm/card0"),
            ("renderD128", "platform/vgem/drm/renderD128"),
            ("card1", "platform/vgem/drm/card1"),
        ] {
            std::os::unix::fs::symlink(root.join("devices").join(device), class.join(name)).expect("a link");
        }
        assert_eq!(vgem(&class), Some(PathBuf::from("/dev/dri/card1")));
        assert_eq!(vgem(&root.join("nowhere")), None);
    }
}
