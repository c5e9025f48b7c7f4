//! Whole lines on their way into one file, pipe or connection.

use crate::publish::json;
use std::collections::VecDeque;
use std::io::{ErrorKind, Result, Write};

/// Most bytes held for a destination that does not take them at the moment.
const ROOM: usize = 1 << 20;
/// Most bytes in one write: a pipe that nobody reads is noticed soon, and what it took is known.
const CHUNK: usize = 1 << 16;

/// Lines that a destination has not taken yet.
///
/// A line is either held as a whole or lost as a whole, whatever the destination does: one that took half a
/// line gets the other half first when it takes bytes again. Lost records are counted, and a `lost` line
/// stands in their place.
#[derive(Debug, Default)]
pub(super) struct Feed {
    /// Bytes of the lines held, from `start` on; those before `out` are with the destination.
    bytes: Vec<u8>,
    start: usize,
    out: usize,
    /// Ends of the lines held, as positions in `bytes`, and whether the line is a record.
    ends: VecDeque<(usize, bool)>,
    /// Records that are missing before the next line.
    missing: u64,
    /// Records that the destination took.
    pub written: u64,
    /// Records that found no room.
    pub lost: u64,
}

impl Feed {
    /// A feed that starts with a header line.
    pub fn new(header: &[u8]) -> Self {
        let mut feed = Self::default();
        feed.hold(header, false);
        feed
    }

    /// Takes a record's line, with `missing` records lost before it.
    pub fn take(&mut self, line: &[u8], missing: u64) {
        self.missing += missing;
        if self.bytes.len() - self.out + line.len() > ROOM {
            self.lost += 1;
            self.missing += 1;
            return;
        }
        if self.missing > 0 {
            let mut gap = Vec::new();
            json::lost(&mut gap, std::mem::take(&mut self.missing));
            self.hold(&gap, false);
        }
        self.hold(line, true);
    }

    fn hold(&mut self, line: &[u8], record: bool) {
        // Taken lines go before the buffer would grow for them.
        if self.start > ROOM / 2 {
            self.bytes.drain(..self.start);
            for (end, _) in &mut self.ends {
                *end -= self.start;
            }
            self.out -= self.start;
            self.start = 0;
        }
        self.bytes.extend_from_slice(line);
        self.ends.push_back((self.bytes.len(), record));
    }

    /// Hands on what `to` takes now. Nothing is lost by an error: call again.
    ///
    /// # Errors
    /// What `to` says, save that it would block or was interrupted.
    pub fn pump(&mut self, to: &mut impl Write) -> Result<()> {
        while self.out < self.bytes.len() {
            let end = self.bytes.len().min(self.out + CHUNK);
            match to.write(&self.bytes[self.out..end]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(taken) => self.out += taken,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            while let Some(&(end, record)) = self.ends.front()
                && end <= self.out
            {
                self.written += u64::from(record);
                self.start = end;
                self.ends.pop_front();
            }
        }
        if self.ends.is_empty() {
            self.bytes.clear();
            (self.start, self.out) = (0, 0);
        }
        Ok(())
    }

    /// Whether the destination has taken everything.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Records held.
    pub fn held(&self) -> u64 {
        self.ends.iter().map(|(_, record)| u64::from(*record)).sum()
    }

    /// Bytes of a line that the destination has taken without the line's end.
    pub fn begun(&self) -> usize {
        self.out - self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Error;

    /// Takes as many bytes as it is told, then fails or blocks.
    #[derive(Default)]
    struct Moody {
        got: Vec<u8>,
        allowance: usize,
        blocks: bool,
    }

    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            let taken = bytes.len().min(self.allowance);
            if taken == 0 {
                return Err(Error::from(if self.blocks {
                    ErrorKind::WouldBlock
                } else {
                    ErrorKind::StorageFull
                }));
            }
            self.allowance -= taken;
            self.got.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    fn line(number: u64, length: usize) -> Vec<u8> {
        format!("{{\"n\":{number},\"pad\":\"{}\"}}\n", "x".repeat(length)).into_bytes()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Whatever the destination takes and when, it sees whole lines in order, and written plus lost plus
        /// held is what went in; the gaps it is told of are what is missing.
        #[test]
        fn lines_stay_whole(steps in prop::collection::vec(
            (0_usize..400_000, any::<bool>(), 0_usize..200_000, 0_u64..3),
            1..60,
        )) {
            let mut feed = Feed::new(b"{\"header\":1}\n");
            let mut to = Moody::default();
            let (mut offered, mut missing_before) = (0, 0);
            for (allowance, blocks, length, missing) in steps {
                feed.take(&line(offered, length), missing);
                offered += 1;
                missing_before += missing;
                to.allowance = allowance;
                to.blocks = blocks;
                let _ = feed.pump(&mut to);
                prop_assert_eq!(feed.written + feed.lost + feed.held(), offered);
                let tail = to.got.iter().rev().take_while(|&&byte| byte != b'\n').count();
                prop_assert_eq!(feed.begun(), tail);
            }
            to.allowance = usize::MAX;
            feed.pump(&mut to).unwrap();
            prop_assert!(feed.is_empty());
            let (mut next, mut records, mut gaps) = (0, 0, 0);
            for (at, text) in to.got.split(|&byte| byte == b'\n').filter(|text| !text.is_empty()).enumerate() {
                let value: serde_json::Value = serde_json::from_slice(text).unwrap();
                if at == 0 {
                    prop_assert_eq!(&value["header"], 1);
                } else if value["type"] == "lost" {
                    gaps += value["count"].as_u64().unwrap();
                } else {
                    let number = value["n"].as_u64().unwrap();
                    prop_assert!(number >= next);
                    next = number + 1;
                    records += 1;
                }
            }
            prop_assert_eq!(records, feed.written);
            prop_assert_eq!(gaps + feed.missing, feed.lost + missing_before);
        }
    }
}
