//! Archives as the kernel unpacks them into its first file system (cpio, "newc"), the same for the same files:
//! no times, owners or inode numbers of this machine.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;

/// Writes an archive.
pub struct Archive<W: Write> {
    out: W,
    entries: u32,
    folders: Vec<String>,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out, entries: 0, folders: Vec::new() }
    }

    pub fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.parents(name)?;
        self.entry(name, FILE | mode, bytes)
    }

    /// A file of this machine, links followed, with its permissions.
    pub fn copy(&mut self, name: &str, from: &Path) -> io::Result<()> {
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        self.file(name, mode, &fs::read(from)?)
    }

    pub fn folder(&mut self, name: &str) -> io::Result<()> {
        self.parents(&format!("{name}/"))
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parents(&mut self, name: &str) -> io::Result<()> {
        for (end, _) in name.match_indices('/') {
            let folder = &name[..end];
            if !folder.is_empty() && !self.folders.iter().any(|there| there == folder) {
                self.folders.push(folder.to_owned());
                self.entry(folder, DIRECTORY, &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let size =
            u32::try_from(bytes.len()).map_err(|_| io::Error::other(format!("{name} is too large")))?;
        let length = name.len() as u32 + 1;
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, length, 0];
        let mut header = "070701".to_owned();
        fields.iter().for_each(|field| header.push_str(&format!("{field:08X}")));
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(name.as_bytes())?;
        self.pad(1, header.len() + name.len() + 1)?;
        self.out.write_all(bytes)?;
        self.pad(0, bytes.len())
    }

    /// `least` zeros, and more until what began `written` bytes and these zeros ago is whole words.
    fn pad(&mut self, least: usize, written: usize) -> io::Result<()> {
        self.out.write_all(&[0; 4][..least + (4 - written % 4) % 4])
    }
}

/// The files of an archive, in its order.
pub fn files(mut rest: &[u8]) -> Result<Vec<(String, &[u8])>, String> {
    let mut files = Vec::new();
    loop {
        let cut = || "the archive from the machine is cut off".to_owned();
        let header = rest.get(..110).ok_or_else(cut)?;
        let field = |index: usize| {
            let text = std::str::from_utf8(&header[6 + 8 * index..14 + 8 * index]).ok();
            text.and_then(|text| usize::from_str_radix(text, 16).ok()).ok_or_else(cut)
        };
        let (mode, size, length) = (field(1)?, field(6)?, field(11)?);
        let name = rest.get(110..110 + length.saturating_sub(1)).ok_or_else(cut)?;
        let name = String::from_utf8_lossy(name).into_owned();
        let start = (110 + length).next_multiple_of(4);
        let bytes = rest.get(start..start + size).ok_or_else(cut)?;
        if name == "TRAILER!!!" {
            return Ok(files);
        }
        if mode as u32 & 0o170_000 == FILE {
            files.push((name, bytes));
        }
        rest = rest.get((start + size).next_multiple_of(4)..).ok_or_else(cut)?;
    }
}
