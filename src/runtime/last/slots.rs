//! The file's layout: two generations of one text, each with its own checksum, written in turn. Whatever is
//! torn while it is written, the other generation is whole. It is text, so that people can read it too.

use sha2::{Digest, Sha256};

/// What a generation begins with, before the version.
const MARK: &str = "ocelli last ledger ";
/// Version of layout and text.
const VERSION: &str = "1";
/// Longest head line in bytes.
const HEAD: usize = 192;
/// Whole blocks, so that writing one generation touches no byte of the other on the medium.
const BLOCK: usize = 4096;

/// Why a file has no generation that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// There is nothing in it.
    Empty,
    /// It was written by another version.
    Foreign(String),
    /// Neither generation is whole.
    Garbage,
}

/// Bytes of one generation that has room for a text of `longest` bytes.
pub(super) fn room(longest: usize) -> usize {
    (HEAD + longest).next_multiple_of(BLOCK)
}

/// A generation as it is written, `room` bytes; `None` when the text is too long for it.
pub(super) fn written(generation: u64, text: &str, room: usize) -> Option<Vec<u8>> {
    let (bytes, digest) = (text.len(), digest(generation, text));
    let head = format!("{MARK}{VERSION}: generation {generation}, {bytes} bytes, sha256 {digest}\n");
    let mut slot = (head + text).into_bytes();
    (slot.len() < room).then(|| {
        slot.resize(room - 1, b' ');
        slot.push(b'\n');
        slot
    })
}

/// The newest generation that is whole: its number and text.
pub(super) fn newest(file: &[u8]) -> Result<(u64, &str), Unread> {
    // The first one's room is not looked at: where the file was cut, it may still be whole.
    let both = [read(file), read(&file[file.len() / 2..])];
    if let Some(newest) = both.iter().flatten().max_by_key(|(generation, _)| *generation) {
        return Ok(*newest);
    }
    if file.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace()) {
        return Err(Unread::Empty);
    }
    let foreign = both.into_iter().filter_map(Result::err).find(|why| matches!(why, Unread::Foreign(_)));
    Err(foreign.unwrap_or(Unread::Garbage))
}

fn read(slot: &[u8]) -> Result<(u64, &str), Unread> {
    let garbage = || Unread::Garbage;
    let end = slot.iter().take(HEAD).position(|byte| *byte == b'\n').ok_or_else(garbage)?;
    let (head, rest) = (str::from_utf8(&slot[..end]).map_err(|_| garbage())?, &slot[end + 1..]);
    let (version, head) =
        head.strip_prefix(MARK).and_then(|head| head.split_once(": ")).ok_or_else(garbage)?;
    if version != VERSION {
        return Err(Unread::Foreign(version.to_owned()));
    }
    let fields = || {
        let (generation, head) = head.strip_prefix("generation ")?.split_once(", ")?;
        let (bytes, sha256) = head.split_once(" bytes, sha256 ")?;
        Some((generation.parse::<u64>().ok()?, bytes.parse::<usize>().ok()?, sha256))
    };
    let (generation, bytes, sha256) = fields().ok_or_else(garbage)?;
    let text = str::from_utf8(rest.get(..bytes).ok_or_else(garbage)?).map_err(|_| garbage())?;
    (digest(generation, text) == sha256).then_some((generation, text)).ok_or_else(garbage)
}

fn digest(generation: u64, text: &str) -> String {
    let digest = Sha256::new().chain_update(generation.to_le_bytes()).chain_update(text).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Generation 7 in the first place, 8 in the second.
    fn file() -> Vec<u8> {
        let room = room(40);
        [written(7, "the older words", room), written(8, "the newer words", room)]
            .map(Option::unwrap_or_default)
            .concat()
    }

    #[test]
    fn the_newer_of_two_generations_is_read() {
        let file = file();
        assert_eq!((file.len(), newest(&file)), (2 * BLOCK, Ok((8, "the newer words"))));
        assert_eq!(newest(&file[..BLOCK]), Ok((7, "the older words")), "one alone");
        let turned = [&file[BLOCK..], &file[..BLOCK]].concat();
        assert_eq!(newest(&turned), Ok((8, "the newer words")));
    }

    #[test]
    fn whatever_is_torn_the_other_generation_is_whole() {
        let (whole, next) = (file(), written(9, "the newest words", BLOCK).expect("it fits"));
        // Generation 9 takes the place of 7; the write stops after any number of bytes.
        for length in 0..=next.len() {
            let mut torn = whole.clone();
            torn[..length].copy_from_slice(&next[..length]);
            let (generation, text) = newest(&torn).expect("a whole one");
            assert!(
                [(8, "the newer words"), (9, "the newest words")].contains(&(generation, text)),
                "{length}"
            );
        }
        // And any byte of the newer one that rots.
        for at in BLOCK..BLOCK + 130 {
            let mut rotten = whole.clone();
            rotten[at] ^= 0x20;
            assert_eq!(newest(&rotten), Ok((7, "the older words")), "{at}");
        }
    }

    #[test]
    fn files_that_were_cut_still_say_something() {
        let file = file();
        let whole =
            file.iter().position(|byte| *byte == b'\n').expect("a head") + 1 + "the older words".len();
        for length in (0..file.len()).rev() {
            match newest(&file[..length]) {
                Ok(read) => assert_eq!(read, (7, "the older words")),
                Err(why) => assert!(
                    length < whole && [Unread::Garbage, Unread::Empty].contains(&why),
                    "{length} {why:?}"
                ),
            }
        }
    }

    #[test]
    fn what_is_no_ledger_is_told_apart() {
        assert_eq!(newest(b""), Err(Unread::Empty));
        assert_eq!(newest(&[0; 8192]), Err(Unread::Empty));
        assert_eq!(newest(&[0xff; 8192]), Err(Unread::Garbage));
        assert_eq!(newest(b"ocelli last ledger 12: whatever\nx"), Err(Unread::Foreign("12".into())));
        for odd in [
            "ocelli last ledger 1: generation 1, 99999999999999999999 bytes, sha256 \n",
            "ocelli last ledger \n",
        ] {
            assert_eq!(newest(odd.as_bytes()), Err(Unread::Garbage));
        }
        assert_eq!(written(1, &"x".repeat(BLOCK), BLOCK), None);
    }
}
