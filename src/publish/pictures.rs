//! Annotated pictures: every few seconds one frame of each stream, with what was seen in it, as a JPEG file.
//!
//! The publishing thread copies the pixels of a frame that is due (counted, [`CopyStage::Pictures`]) into a
//! buffer made at start; a thread of its own converts, draws, compresses and writes. When that is busy, the
//! picture is skipped and counted.
//!
//! Files are named `<stream>-<sequence>.jpg` and appear whole or not at all. A folder never fills a disk: of
//! every stream the newest [`KEPT`] stay, those of earlier runs included. A folder belongs to one process.

mod draw;
mod rgb;

use crate::board::Board;
use crate::image::{ImageLayout, PixelFormat};
use crate::platform::{Waker, clock};
use crate::publish::{StartError, json};
use crate::record::Record;
use crate::ring::{Receiver, Sender, ring};
use crate::stats::{Copies, CopyStage};
use crate::stream::StreamId;
use crate::time::Instant;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Pictures of one stream that are kept.
pub const KEPT: usize = 50;
/// Time between two pictures of one stream, on a board with few streams.
const PERIOD: Duration = Duration::from_secs(2);
/// Least time between two pictures, all streams together: many streams get theirs less often.
const SPACING: Duration = Duration::from_millis(250);
/// Frames that may wait to be drawn.
const SNAPSHOTS: usize = 3;
/// JPEG quality, 1 to 100.
const QUALITY: u8 = 85;
/// A picture that is being written.
const PART: &str = ".ocelli.part";

/// A frame that was copied, and its record.
struct Snapshot {
    /// Rows without padding, as `layout` says.
    bytes: Vec<u8>,
    layout: ImageLayout,
    record: Option<Record>,
}

/// The publishing thread's half.
pub struct Pictures {
    full: Sender<Box<Snapshot>>,
    free: Receiver<Box<Snapshot>>,
    /// When each stream's next picture is due.
    next: Vec<Instant>,
    period: Duration,
    copies: Arc<Copies>,
    shared: Arc<Shared>,
    waker: Waker,
}

/// The drawing thread, seen from outside.
pub struct Painter {
    shared: Arc<Shared>,
    waker: Waker,
    ended: mpsc::Receiver<()>,
}

/// How the pictures ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PicturesReport {
    /// Files written.
    pub written: u64,
    /// Pictures that were due while the drawing thread was busy.
    pub skipped: u64,
    /// Files that could not be written.
    pub failed: u64,
    /// The first thing that went wrong.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    written: AtomicU64,
    skipped: AtomicU64,
    failed: AtomicU64,
    error: Mutex<Option<String>>,
    stop: AtomicBool,
}

/// Makes the folder and starts the drawing thread. The streams' pictures are spread evenly over their period,
/// starting at `now`.
///
/// # Errors
/// The folder and why nothing can be written there (exit code 73).
pub fn start(
    folder: &Path,
    board: &Arc<Board>,
    copies: &Arc<Copies>,
    now: Instant,
) -> Result<(Pictures, Painter), StartError> {
    let album = Album::open(folder, board).map_err(|error| StartError {
        what: format!("cannot write pictures into {}: {error}", folder.display()),
        remedy: "name a folder that this user may make and write to".into(),
    })?;
    let (full, inbox) = ring::<Box<Snapshot>, { SNAPSHOTS + 1 }>();
    let (mut outbox, free) = ring::<Box<Snapshot>, { SNAPSHOTS + 1 }>();
    let largest = board.streams.iter().map(|stream| {
        ImageLayout::packed(stream.format, stream.width, stream.height).extent().unwrap_or_default()
    });
    let largest = largest.max().unwrap_or_default();
    for _ in 0..SNAPSHOTS {
        // Not zero: the pages are to be there before the first frame is.
        let bytes = vec![1; largest];
        let layout = ImageLayout::packed(PixelFormat::Gray8, 1, 1);
        let _ = outbox.enqueue(Box::new(Snapshot { bytes, layout, record: None }));
    }
    let shared = Arc::new(Shared::default());
    let waker = Waker::new();
    let (alive, ended) = mpsc::channel();
    let theirs = (Arc::clone(&shared), waker.clone());
    std::thread::Builder::new()
        .name("pictures".into())
        .spawn(move || {
            run(album, inbox, outbox, &theirs.0, &theirs.1);
            drop(alive);
        })
        .map_err(|error| StartError {
            what: format!("cannot start the thread of the pictures: {error}"),
            remedy: "raise the limit of threads (ulimit -u)".into(),
        })?;
    let streams = u32::try_from(board.streams.len()).unwrap_or(u32::MAX).max(1);
    let period = PERIOD.max(SPACING * streams);
    let pictures = Pictures {
        full,
        free,
        next: (0..streams).map(|index| now + period * index / streams).collect(),
        period,
        copies: Arc::clone(copies),
        shared: Arc::clone(&shared),
        waker: waker.clone(),
    };
    Ok((pictures, Painter { shared, waker, ended }))
}

impl Pictures {
    /// Whether a picture of `stream` is due.
    #[must_use]
    pub fn wants(&self, stream: StreamId, now: Instant) -> bool {
        self.next.get(stream.index()).is_some_and(|next| now >= *next)
    }

    /// Hands over a frame and what was seen in it. Copies the pixels; skips, counted, when the drawing thread
    /// is busy or the frame is larger than its stream's may be. The next one is due a period after `now`.
    pub fn offer(&mut self, bytes: &[u8], layout: &ImageLayout, record: &Record, now: Instant) {
        let Some(next) = self.next.get_mut(record.stream.index()) else { return };
        *next = now + self.period;
        let Some(mut snapshot) = self.free.dequeue() else {
            self.shared.skipped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        match snapshot.fill(bytes, layout) {
            Some(copied) => {
                self.copies.count(CopyStage::Pictures, copied);
                snapshot.record = Some(record.clone());
            }
            None => {
                self.shared.skipped.fetch_add(1, Ordering::Relaxed);
                snapshot.record = None;
            }
        }
        let kept = self.full.enqueue(snapshot);
        debug_assert!(kept.is_ok(), "more snapshots than were made");
        self.waker.wake();
    }
}

impl Snapshot {
    /// Copies the visible part of each row. The bytes copied; `None` when they don't fit.
    fn fill(&mut self, bytes: &[u8], layout: &ImageLayout) -> Option<usize> {
        let mut packed = ImageLayout::packed(layout.format, layout.width, layout.height);
        packed.color = layout.color;
        let size = packed.extent()?;
        if size > self.bytes.len() || layout.extent()? > bytes.len() {
            return None;
        }
        for plane in 0..layout.format.planes() {
            let (row, rows) = layout.format.plane_extent(plane, layout.width, layout.height);
            let (from, to) = (layout.planes[plane], packed.planes[plane]);
            for index in 0..rows {
                self.bytes[to.offset + index * to.stride..][..row]
                    .copy_from_slice(&bytes[from.offset + index * from.stride..][..row]);
            }
        }
        self.layout = packed;
        Some(size)
    }
}

impl Painter {
    /// Stops after the last offer; pictures that wait are still written if that takes no longer than
    /// `patience`.
    #[must_use]
    pub fn finish(self, patience: Duration) -> PicturesReport {
        self.shared.stop.store(true, Ordering::Release);
        self.waker.wake();
        let _ = self.ended.recv_timeout(patience);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PicturesReport {
            written: count(&self.shared.written),
            skipped: count(&self.shared.skipped),
            failed: count(&self.shared.failed),
            error: self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }
}

/// The drawing thread.
fn run(
    mut album: Album,
    mut inbox: Receiver<Box<Snapshot>>,
    mut outbox: Sender<Box<Snapshot>>,
    shared: &Shared,
    waker: &Waker,
) {
    waker.attach();
    let mut failing = false;
    loop {
        let stop = shared.stop.load(Ordering::Acquire);
        while let Some(mut snapshot) = inbox.dequeue() {
            if let Some(record) = snapshot.record.take() {
                let result = album.add(&snapshot.bytes, &snapshot.layout, &record);
                let counter = if result.is_ok() { &shared.written } else { &shared.failed };
                counter.fetch_add(1, Ordering::Relaxed);
                if let Err(fault) = &result {
                    if !failing {
                        log::warn!("{fault}");
                    }
                    let mut error = shared.error.lock().unwrap_or_else(PoisonError::into_inner);
                    error.get_or_insert_with(|| fault.clone());
                }
                failing = result.is_err();
            }
            let _ = outbox.enqueue(snapshot);
        }
        if stop {
            return;
        }
        waker.wait_until(Some(clock::now() + PERIOD));
    }
}

/// The folder.
struct Album {
    folder: PathBuf,
    board: Arc<Board>,
    /// Of each stream the files that are there, oldest first.
    files: Vec<VecDeque<PathBuf>>,
    rgb: Vec<u8>,
    jpeg: Vec<u8>,
}

impl Album {
    fn open(folder: &Path, board: &Arc<Board>) -> std::io::Result<Self> {
        fs::create_dir_all(folder)?;
        fs::File::create(folder.join(PART))?;
        fs::remove_file(folder.join(PART))?;
        let mut found: Vec<Vec<_>> = vec![Vec::new(); board.streams.len()];
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((stream, sequence)) =
                name.to_str().and_then(|name| name.strip_suffix(".jpg")?.rsplit_once('-'))
            else {
                continue;
            };
            let known = board.streams.iter().position(|known| file_name(&known.id) == stream);
            if let (Some(index), true) = (known, sequence.bytes().all(|byte| byte.is_ascii_digit())) {
                found[index].push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        let files = found.into_iter().map(|mut files| {
            files.sort();
            files.into_iter().map(|(_, path)| path).collect()
        });
        let files = files.collect();
        Ok(Self { folder: folder.into(), board: Arc::clone(board), files, rgb: Vec::new(), jpeg: Vec::new() })
    }

    fn add(&mut self, bytes: &[u8], layout: &ImageLayout, record: &Record) -> Result<(), String> {
        let stream = record.stream.index();
        let id = &self.board.streams[stream].id;
        let path = self.folder.join(format!("{}-{:08}.jpg", file_name(id), record.sequence));
        rgb::convert(bytes, layout, &mut self.rgb);
        let mut canvas = draw::Canvas::new(&mut self.rgb, layout.width, layout.height);
        canvas.caption(&caption(id, record));
        if let Some(served) = &record.served {
            let labels = self.board.models.get(served.model.index()).map_or(&[][..], |model| &model.labels);
            for detection in &served.detections {
                canvas.detection(detection, &json::label(labels, detection.label));
            }
        }
        self.jpeg.clear();
        JpegEncoder::new_with_quality(&mut self.jpeg, QUALITY)
            .encode(&self.rgb, layout.width, layout.height, ExtendedColorType::Rgb8)
            .map_err(|error| format!("cannot compress the picture {}: {error}", path.display()))?;
        let part = self.folder.join(PART);
        fs::write(&part, &self.jpeg).and_then(|()| fs::rename(&part, &path)).map_err(|error| {
            let _ = fs::remove_file(&part);
            format!("cannot write the picture {}: {error}", path.display())
        })?;
        let files = &mut self.files[stream];
        files.retain(|file| *file != path);
        files.push_back(path);
        while files.len() > KEPT {
            // Someone may have taken it away already.
            files.pop_front().map(fs::remove_file);
        }
        Ok(())
    }
}

/// What the picture's upper edge says.
fn caption(id: &str, record: &Record) -> String {
    let latency = record.finished.since(record.captured).as_secs_f64() * 1e3;
    let (outcome, reason) = json::words(record.outcome);
    match reason {
        None => format!("{id} #{} {outcome} {latency:.1} ms", record.sequence),
        Some(reason) => format!("{id} #{} {outcome}: {reason}", record.sequence),
    }
}

/// A stream's name as part of a file's name.
fn file_name(id: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
    id.chars().map(|char| if plain(char) { char } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::samples;

    fn frame() -> (Vec<u8>, ImageLayout) {
        let layout = ImageLayout::packed(PixelFormat::Nv12, 320, 240);
        (vec![128; layout.extent().unwrap()], layout)
    }

    fn jpegs(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_picture_is_written_whole_and_its_copy_counted() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("made/on/demand");
        let copies = Arc::new(Copies::default());
        let now = Instant::from_nanos(5_000_000_000);
        let (mut pictures, painter) = start(&inside, &samples::board(), &copies, now).unwrap();
        assert!(pictures.wants(StreamId(0), now));
        assert!(!pictures.wants(StreamId(1), now), "streams take turns");
        assert!(pictures.wants(StreamId(1), now + PERIOD / 2));
        let (bytes, layout) = frame();
        pictures.offer(&bytes, &layout, &samples::served(7), now);
        assert!(!pictures.wants(StreamId(0), now + PERIOD / 2));
        assert!(pictures.wants(StreamId(0), now + PERIOD));
        let report = painter.finish(Duration::from_secs(20));
        assert_eq!(report, PicturesReport { written: 1, ..Default::default() });
        assert_eq!(copies.bytes(CopyStage::Pictures), bytes.len() as u64);
        assert_eq!(jpegs(&inside), ["front-00000007.jpg"]);
        let picture = image::load_from_memory(&fs::read(inside.join("front-00000007.jpg")).unwrap()).unwrap();
        assert_eq!((picture.width(), picture.height()), (320, 240));
    }

    #[test]
    fn padding_is_not_copied() {
        let (packed, layout) = frame();
        let mut padded = layout;
        padded.planes[0].stride = 512;
        padded.planes[1] = crate::image::Plane { offset: 512 * 250, stride: 512 };
        let bytes = vec![128; padded.extent().unwrap()];
        let mut snapshot = Snapshot { bytes: vec![0; packed.len()], layout, record: None };
        assert_eq!(snapshot.fill(&bytes, &padded), Some(packed.len()));
        assert_eq!((snapshot.bytes, snapshot.layout), (packed, layout));
    }

    #[test]
    fn what_does_not_fit_is_skipped() {
        let (bytes, layout) = frame();
        let mut snapshot = Snapshot { bytes: vec![0; bytes.len() - 1], layout, record: None };
        assert_eq!(snapshot.fill(&bytes, &layout), None, "larger than the stream's frames may be");
        snapshot.bytes = vec![0; bytes.len()];
        assert_eq!(snapshot.fill(&bytes[1..], &layout), None, "shorter than its layout says");
    }

    #[test]
    fn the_folder_keeps_the_newest_across_runs() {
        let folder = tempfile::tempdir().unwrap();
        let board = samples::board();
        let (bytes, layout) = frame();
        let others = ["notes.jpg", "front-side-00000001.jpg", "front-x.jpg"];
        for other in others {
            fs::write(folder.path().join(other), "").unwrap();
        }
        for first in [0, 40] {
            let mut album = Album::open(folder.path(), &board).unwrap();
            for sequence in first..first + 40 {
                album.add(&bytes, &layout, &samples::served(sequence)).unwrap();
            }
        }
        let names = jpegs(folder.path());
        assert_eq!(names.len(), KEPT + others.len());
        assert!(names.contains(&"front-00000079.jpg".to_owned()));
        assert!(!names.contains(&"front-00000000.jpg".to_owned()));
        for other in others {
            assert!(names.contains(&other.to_owned()), "{other} is not ours");
        }
    }

    #[test]
    fn a_folder_that_vanishes_costs_counted_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let (mut pictures, painter) =
            start(folder.path(), &samples::board(), &Arc::default(), Instant::default()).unwrap();
        fs::remove_dir_all(folder.path()).unwrap();
        let (bytes, layout) = frame();
        pictures.offer(&bytes, &layout, &samples::served(1), Instant::default());
        let report = painter.finish(Duration::from_secs(20));
        assert_eq!((report.written, report.failed), (0, 1));
        assert!(report.error.unwrap().contains("front-00000001.jpg"));
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let started =
            start(&file.path().join("inside"), &samples::board(), &Arc::default(), Instant::default());
        let error = started.err().unwrap().to_string();
        assert!(error.contains("inside") && error.contains("name a folder"), "{error}");
    }
}
