use super::*;

fn writer(path: &Path) -> Writer {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).expect("a file");
    Writer { file, path: path.to_owned(), room: slots::room(100), generation: 0, failing: false }
}

fn text_of(path: &Path) -> String {
    slots::newest(&fs::read(path).expect("a file")).expect("a generation").1.to_owned()
}

#[test]
fn generations_take_turns_and_the_file_does_not_grow() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x");
    let mut writer = writer(&path);
    reserve(&writer.file, 2 * writer.room).expect("room");
    for round in 0..5 {
        let text = format!("word {round}");
        writer.write(&text).expect("written");
        assert_eq!(text_of(&path), text);
        assert_eq!(path.metadata().expect("a file").len(), 2 * writer.room as u64);
    }
    assert!(writer.write(&"x".repeat(writer.room)).is_err(), "no room");
    assert_eq!(text_of(&path), "word 4");
}

#[test]
fn a_full_disk_is_said_and_ends_nothing() {
    let mut full = writer(Path::new("/dev/full"));
    let error = full.write("word").expect_err("full");
    assert_eq!((error.kind(), full.generation), (io::ErrorKind::StorageFull, 0));
    // The thread goes on, and ends when it is told to.
    let mailbox = Mailbox::default();
    mailbox.put("word".to_owned(), true);
    full.run(&mailbox);
}

#[test]
fn the_newest_word_is_what_the_disk_gets() {
    let mailbox = Mailbox::default();
    mailbox.put("older".to_owned(), false);
    mailbox.put("newer".to_owned(), false);
    assert_eq!(mailbox.take().as_deref(), Some("newer"));
    mailbox.put("last".to_owned(), true);
    mailbox.close();
    assert_eq!(mailbox.take().as_deref(), Some("last"));
    assert_eq!(mailbox.take(), None);
}
