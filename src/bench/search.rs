//! The search for the largest number that passes: bracket, bisect, confirm, and step down where that fails.

use crate::bench::Offer;

/// How much finer than one stream the finer measure is: steps of a bisection between N and N + 1.
const FINER_STEPS: u32 = 5;

/// What a trial says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In time.
    Passed,
    /// Not in time.
    Failed,
    /// Nothing, and why.
    Invalid(String),
}

/// Something that can be tried.
pub trait Trials {
    /// Why a trial could not be made.
    type Error;

    /// A short trial.
    ///
    /// # Errors
    /// The trial could not be made.
    fn probe(&mut self, offer: Offer) -> Result<Verdict, Self::Error>;

    /// Long ones, all of which must pass.
    ///
    /// # Errors
    /// A trial could not be made.
    fn confirm(&mut self, offer: Offer) -> Result<Verdict, Self::Error>;
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The largest number that passed and was confirmed; 0: not even one.
    Found(usize),
    /// A trial that it depends on said nothing.
    Invalid(String),
}

/// Looks for the largest number of streams up to `most` that passes, from `start` on.
///
/// # Errors
/// A trial could not be made.
pub fn search<T: Trials>(start: usize, most: usize, trials: &mut T) -> Result<Outcome, T::Error> {
    let offer = |streams| Offer { streams, rate: 1.0 };
    // All of `passes` and below pass, all of `fails` and above fail.
    let (mut passes, mut fails) = (0, most + 1);
    let mut next = start.clamp(1, most.max(1));
    let mut bracketed = false;
    while fails - passes > 1 {
        match trials.probe(offer(next))? {
            Verdict::Invalid(why) => return Ok(Outcome::Invalid(why)),
            Verdict::Passed => passes = next,
            Verdict::Failed => fails = next,
        }
        bracketed |= passes > 0 && fails <= most;
        next = if bracketed {
            passes.midpoint(fails)
        } else if passes > 0 {
            (passes + (passes / 10).max(1)).min(most)
        } else {
            fails - (fails / 5).max(1)
        }
        .clamp(1, most);
    }
    while passes > 0 {
        match trials.confirm(offer(passes))? {
            Verdict::Invalid(why) => return Ok(Outcome::Invalid(why)),
            Verdict::Passed => break,
            Verdict::Failed => passes -= 1,
        }
    }
    Ok(Outcome::Found(passes))
}

/// The number at the declared rate as a fraction: with `streams` streams the rate of all is raised, or, where
/// not even they pass at their own (`passed` false), lowered, until it no longer passes. Short trials only.
///
/// # Errors
/// A trial could not be made.
pub(super) fn finer<T: Trials>(streams: usize, passed: bool, trials: &mut T) -> Result<f64, T::Error> {
    let (mut passes, mut fails) = if passed { (1.0, 1.0 + 1.5 / streams as f64) } else { (0.0, 1.0) };
    for _ in 0..FINER_STEPS {
        let rate = f64::midpoint(passes, fails);
        match trials.probe(Offer { streams, rate })? {
            Verdict::Passed => passes = rate,
            // An invalid trial proves nothing, so nothing more is claimed.
            Verdict::Failed | Verdict::Invalid(_) => fails = rate,
        }
    }
    Ok(passes * streams as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Up to `good` pass, up to `sound` are confirmed; from `unsure` on nothing is said.
    struct Curve {
        good: f64,
        sound: usize,
        unsure: usize,
        tried: Vec<usize>,
    }

    impl Curve {
        fn new(good: f64) -> Self {
            Self { good, sound: usize::MAX, unsure: usize::MAX, tried: Vec::new() }
        }

        fn say(&mut self, streams: usize, passes: bool) -> Verdict {
            self.tried.push(streams);
            match passes {
                _ if streams >= self.unsure => Verdict::Invalid("late".to_owned()),
                true => Verdict::Passed,
                false => Verdict::Failed,
            }
        }
    }

    impl Trials for Curve {
        type Error = Infallible;

        fn probe(&mut self, offer: Offer) -> Result<Verdict, Infallible> {
            let passes = offer.streams as f64 * offer.rate <= self.good;
            Ok(self.say(offer.streams, passes))
        }

        fn confirm(&mut self, offer: Offer) -> Result<Verdict, Infallible> {
            let passes = offer.streams <= self.sound;
            Ok(self.say(offer.streams, passes))
        }
    }

    #[test]
    fn the_largest_that_passes_is_found_from_wherever_the_search_begins() {
        for good in 0..=256 {
            for start in [1, 2, 57, 200, 256, 1000] {
                let mut curve = Curve::new(good as f64);
                assert_eq!(search(start, 256, &mut curve), Ok(Outcome::Found(good)), "from {start}");
                assert!(curve.tried.len() < 60, "{good} from {start}: {:?}", curve.tried);
            }
        }
    }

    #[test]
    fn no_more_than_asked_for_is_tried() {
        let mut curve = Curve::new(1000.0);
        assert_eq!(search(9, 12, &mut curve), Ok(Outcome::Found(12)));
        assert!(curve.tried.iter().all(|&tried| tried <= 12));
    }

    #[test]
    fn what_is_not_confirmed_is_not_found() {
        let mut curve = Curve { sound: 17, ..Curve::new(20.0) };
        assert_eq!(search(18, 256, &mut curve), Ok(Outcome::Found(17)));
        let mut curve = Curve { sound: 0, ..Curve::new(3.0) };
        assert_eq!(search(3, 256, &mut curve), Ok(Outcome::Found(0)));
    }

    #[test]
    fn what_says_nothing_ends_the_search_without_a_number() {
        let mut curve = Curve { unsure: 30, ..Curve::new(40.0) };
        assert_eq!(search(20, 256, &mut curve), Ok(Outcome::Invalid("late".to_owned())));
    }

    #[test]
    fn finer_is_within_a_thirtieth_of_a_stream() {
        for (streams, good) in [(8, 8.0), (8, 8.71), (64, 64.99), (1, 1.3)] {
            let found = finer(streams, true, &mut Curve::new(good)).unwrap();
            assert!((good - 1.5 / 32.0 - 1e-9..=good + 1e-9).contains(&found), "{found} of {good}");
        }
        let found = finer(1, false, &mut Curve::new(0.4)).unwrap();
        assert!((0.36..=0.4).contains(&found), "{found}");
    }
}
