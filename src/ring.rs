//! Bounded queues between two threads (heapless' SPSC ring): no lock, no allocation after start.

use heapless::spsc::{Consumer, Producer, Queue};

/// The writing end: `enqueue` hands the value back when the ring is full.
pub type Sender<T> = Producer<'static, T>;
/// The reading end.
pub type Receiver<T> = Consumer<'static, T>;

/// A ring for `N - 1` values. Rings are made at start and live as long as the process, on purpose: both
/// ends are on threads that may outlive each other.
#[must_use]
pub fn ring<T, const N: usize>() -> (Sender<T>, Receiver<T>) {
    Box::leak(Box::new(Queue::<T, N>::new())).split()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_hands_the_value_back() {
        let (mut tx, mut rx) = ring::<u8, 3>();
        assert_eq!((tx.enqueue(1), tx.enqueue(2), tx.enqueue(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!((rx.dequeue(), rx.dequeue(), rx.dequeue()), (Some(1), Some(2), None));
    }
}
