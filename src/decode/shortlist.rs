//! The best few of many.

/// A score and where it was found, in one number: the larger is the better, of equal scores the one found
/// at the lower index. (The bits of floats that are not negative are ordered as the floats are.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate(u64);

impl Candidate {
    fn new(index: usize, score: f32) -> Self {
        // Adding zero turns -0 into 0, whose sign bit would rank it above everything.
        Self(u64::from((score.max(0.0) + 0.0).to_bits()) << 32 | u64::from(!(index as u32)))
    }

    pub(super) const fn score(self) -> f32 {
        f32::from_bits((self.0 >> 32) as u32)
    }

    pub(super) const fn index(self) -> usize {
        !(self.0 as u32) as usize
    }
}

/// Keeps the `limit` best candidates in room for twice as many: whenever that is full the worse half is
/// thrown out, so that an offer costs O(1) on average, whatever the scores and their order.
#[derive(Clone, Debug)]
pub(super) struct Shortlist {
    limit: usize,
    kept: Vec<Candidate>,
    /// The worst of the best half when it was last cut: nobody below it can come back.
    floor: Option<Candidate>,
}

impl Shortlist {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, kept: Vec::with_capacity(2 * limit), floor: None }
    }

    /// Most that it keeps.
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.floor = None;
    }

    /// Considers a score, which is a number and not negative.
    pub(super) fn offer(&mut self, index: usize, score: f32) {
        let candidate = Candidate::new(index, score);
        if self.floor.is_some_and(|floor| candidate < floor) {
            return;
        }
        if self.kept.len() == 2 * self.limit {
            self.cut();
        }
        self.kept.push(candidate);
    }

    /// The best, best first.
    pub(super) fn rank(&mut self) -> &[Candidate] {
        if self.kept.len() > self.limit {
            self.cut();
        }
        self.kept.sort_unstable_by(|a, b| b.cmp(a));
        &self.kept
    }

    fn cut(&mut self) {
        let (_, worst, _) = self.kept.select_nth_unstable_by(self.limit - 1, |a, b| b.cmp(a));
        self.floor = Some(*worst);
        self.kept.truncate(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keeps_what_sorting_everything_would_keep(
            scores in prop::collection::vec(prop_oneof![0.0f32..=1.0, Just(0.5), Just(0.0), Just(-0.0)], 0..200),
            limit in 1usize..20,
        ) {
            let mut expected: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
            expected.sort_by(|a, b| b.1.partial_cmp(&a.1).unwrap());
            expected.truncate(limit);
            let mut list = Shortlist::new(limit);
            for round in 0..2 {
                list.clear();
                for (index, score) in scores.iter().enumerate() {
                    list.offer(index, *score);
                }
                let capacity = list.kept.capacity();
                let found: Vec<(usize, f32)> = list.rank().iter().map(|c| (c.index(), c.score())).collect();
                prop_assert_eq!(&found, &expected, "round {}", round);
                prop_assert_eq!(capacity, Shortlist::new(limit).kept.capacity());
            }
        }
    }
}
