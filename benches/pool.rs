//! What a slot costs: take, freeze, clone and drop, against slots kept in a `Mutex<Vec>`, alternated in the
//! same run. Prints the medians in nanoseconds and their ratio.
#![allow(clippy::print_stdout)]

use ocelli::image::{ImageLayout, PixelFormat};
use ocelli::pool::{Pool, PoolError, ShareSpec};
use ocelli::stream::StreamId;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Instant;

const SLOTS: usize = 24;
const ROUNDS: usize = 51;
const TURNS: u32 = 20_000;

fn main() -> Result<(), PoolError> {
    let layout = ImageLayout::packed(PixelFormat::Nv12, 64, 48);
    let slot_bytes = layout.extent().unwrap_or(0);
    let share = Pool::new(&[ShareSpec { slots: SLOTS, slot_bytes }], false)?.share(StreamId(0));
    let list: Arc<Mutex<Vec<Box<[u8]>>>> =
        Arc::new(Mutex::new((0..SLOTS).map(|_| vec![0; slot_bytes].into()).collect()));

    let take_and_return = || drop(black_box(share.take()));
    let whole_life = || {
        let frame = share.take().and_then(|frame| frame.freeze(layout).ok());
        drop(black_box(frame.clone()));
        drop(black_box(frame));
    };
    let mutex = || {
        let slot = list.lock().ok().and_then(|mut free| free.pop());
        let slot = black_box(slot);
        if let (Some(slot), Ok(mut free)) = (slot, list.lock()) {
            free.push(slot);
        }
    };

    let mut nanos = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        nanos[0].push(per_turn(take_and_return));
        nanos[1].push(per_turn(whole_life));
        nanos[2].push(per_turn(mutex));
    }
    let [take, life, mutex] = nanos.map(median);
    println!("pool/take_return          {take:6.1} ns  (aim: under 100 ns)");
    println!("pool/take_freeze_clone_drop {life:4.1} ns");
    println!("pool/mutex_vec            {mutex:6.1} ns");
    println!("pool/ratio_to_mutex       {:6.2}", take / mutex);
    Ok(())
}

fn per_turn(mut turn: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..TURNS {
        turn();
    }
    start.elapsed().as_nanos() as f64 / f64::from(TURNS)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
