//! Service times: how long the accelerator works on a batch, and how long its results take to decode.

use crate::stream::ModelId;
use std::time::Duration;

/// Time kept free before a deadline for the hand-over between threads. Decoding and publishing come on top of it.
pub(super) const TAIL: Duration = crate::cause::BUDGET;

/// Service time of one batch size, pre-processing included, as the executor pays it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The fastest seen: what can't be met even so is hopeless.
    pub fastest: Duration,
    /// What admission and batching plan with: a high quantile.
    pub planned: Duration,
}

/// How long one frame's outputs take to decode and publish, one frame after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoding {
    /// Of a frame with nothing to be seen: what batches are made with.
    pub usual: Duration,
    /// Of a crowd ([`crate::decode::Decoder::scene`]): what admission keeps free.
    pub most: Duration,
}

/// l(b) for every model: a table, because a measured curve need not be a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Per model, ascending by batch size: (size, its service time). Sizes between take the next larger's.
    tables: Vec<Vec<(u16, Service)>>,
    /// Per model; none: it takes no time.
    decodings: Vec<Decoding>,
    /// Measured for a few seconds at start: good for a first plan, no guarantee.
    pub provisional: bool,
    /// The accelerator's places: batches that it works on at once, each in such times. With more at work they would
    /// not hold.
    pub places: usize,
}

impl Profile {
    /// A profile of an accelerator of one place from measured tables, one a model, whose results take no time to decode.
    /// Entries are sorted, and a larger batch is never planned shorter than a smaller one: noise must not make it look free.
    #[must_use]
    pub fn new(mut tables: Vec<Vec<(u16, Service)>>, provisional: bool) -> Self {
        for table in &mut tables {
            table.sort_by_key(|&(size, _)| size);
            let mut floor = Service { fastest: Duration::ZERO, planned: Duration::ZERO };
            for (_, service) in table.iter_mut() {
                floor.fastest = floor.fastest.max(service.fastest);
                floor.planned = floor.planned.max(service.planned).max(floor.fastest);
                *service = floor;
            }
        }
        Self { tables, decodings: Vec::new(), provisional, places: 1 }
    }

    /// The same with so many places.
    #[must_use]
    pub fn with_places(self, places: usize) -> Self {
        Self { places, ..self }
    }

    /// The same with results that take so long to decode, by model.
    #[must_use]
    pub fn with_decodings(self, decodings: Vec<Decoding>) -> Self {
        Self { decodings, ..self }
    }

    /// How long a frame's outputs take to decode.
    #[must_use]
    pub fn decoding(&self, model: ModelId) -> Decoding {
        self.decodings.get(model.index()).copied().unwrap_or_default()
    }

    /// Time from the end of a batch to its last result, where frames are as usual.
    pub(super) fn tail(&self, model: ModelId, jobs: u16) -> Duration {
        TAIL + self.decoding(model).usual * u32::from(jobs)
    }

    /// Service time of a batch of `jobs`, which runs as the next larger size that there is; `None` when
    /// there is none.
    #[must_use]
    pub fn service(&self, model: ModelId, jobs: u16) -> Option<Service> {
        let table = self.tables.get(model.index())?;
        table.iter().find(|&&(size, _)| size >= jobs).map(|&(_, service)| service)
    }

    /// How many models it is about.
    #[must_use]
    pub fn models(&self) -> usize {
        self.tables.len()
    }

    /// Largest batch of a model.
    #[must_use]
    pub fn max_batch(&self, model: ModelId) -> u16 {
        self.tables.get(model.index()).and_then(|table| table.last()).map_or(0, |&(size, _)| size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(fastest: u64, planned: u64) -> Service {
        Service { fastest: Duration::from_millis(fastest), planned: Duration::from_millis(planned) }
    }

    #[test]
    fn sizes_between_take_the_next_larger() {
        let profile = Profile::new(vec![vec![(4, ms(8, 9)), (1, ms(3, 4))]], true);
        assert_eq!(profile.service(ModelId(0), 1), Some(ms(3, 4)));
        assert_eq!(profile.service(ModelId(0), 2), Some(ms(8, 9)));
        assert_eq!(profile.service(ModelId(0), 5), None);
        assert_eq!(profile.service(ModelId(1), 1), None);
        assert_eq!(profile.max_batch(ModelId(0)), 4);
    }

    #[test]
    fn noise_never_makes_a_larger_batch_shorter() {
        let profile = Profile::new(vec![vec![(1, ms(5, 9)), (2, ms(4, 6))]], true);
        assert_eq!(profile.service(ModelId(0), 2), Some(ms(5, 9)));
    }
}
