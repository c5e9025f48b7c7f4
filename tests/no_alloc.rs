//! No heap allocation after start on the threads that handle frames: capture, exec and pub, with the simulated
//! backend.

mod common;
#[path = "common/malloc.rs"]
mod malloc;

use common::running;
use malloc::{handles_frames, of_threads};

#[test]
fn frames_cost_no_allocation() {
    let mut board = running::synthetic(4);
    board.sets = vec![common::one_set(&board, common::ms(60))];
    let sources = board.streams.iter().map(ocelli::capture::open).collect();
    let backend = (running::simulated(&board), ocelli::platform::Waker::new());
    let mut run = running::start_supervised(&board, sources, backend, running::replacements(&board));
    // Everything that happens once has happened when every stream has had a second of frames.
    run.wait_for_frames(30);
    let before = of_threads(handles_frames);
    assert_eq!(before.len(), 4 + 2, "capture, exec and pub threads: {before:?}");
    assert!(before.values().all(|&count| count > 0), "the counter sees every thread's start: {before:?}");
    run.wait_for_frames(90);
    let after = of_threads(handles_frames);
    let finished = run.stop();
    assert_eq!(after, before);
    assert!(finished.total().balances());
    assert_eq!(finished.interventions().captures_given_up, 0, "everybody was watched");
    assert!(finished.total().met > 4 * 60, "frames were served meanwhile: {:?}", finished.total());
}
