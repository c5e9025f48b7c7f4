//! Golden answers: what a model says to generated pictures on the device that its plan was built on, kept with the plan
//! and asked again at every start. A damaged plan, a driver that computes otherwise, or memory that fails shows before
//! the vehicle moves.
#![allow(unsafe_code, reason = "the device reads the pictures")]

use super::compiled::Compiled;
use super::cuda::{Device, Pinned};
use super::kernels::Frame;
use super::lane::{Lane, Place, Plan};
use super::library::Library;
use super::memory::Staging;
use super::network::Network;
use super::passport::{Golden, Key};
use crate::image::{ImageLayout, PixelFormat};
use crate::model::Model;
use crate::platform::Waker;
use crate::random::Random;
use std::sync::Arc;

/// Number of pictures, and their size.
const PICTURES: usize = 2;
const SIZE: (u32, u32) = (320, 240);
/// Values that are kept of an output of a picture, at most.
const VALUES: usize = 256;
/// How far an answer may be off, as a share of the output's largest. One plan on one device answers alike up to the order
/// of sums, which depends on the batch size; in 16 bits, over a deep network, that has been seen to make some per mille.
/// A wrong kernel or a broken weight is off by much more.
const TOLERANCE: f32 = 0.02;

/// What a plan answers on this device, for its passport. What it compiled there for that is kept.
///
/// # Errors
/// It can't be loaded or run, or says nothing finite.
pub fn ask(
    device: &Device,
    library: &Library,
    model: &Model,
    plan: &[u8],
    max_batch: u16,
    dla_core: Option<u8>,
    compiled: &Compiled,
) -> Result<Golden, String> {
    let (networks, mut lane) = open(device, library, model, plan, max_batch, dla_core)?;
    let golden = Pictures::new(device)?.ask(&mut lane, 0, &networks[0])?;
    compiled.renew(&networks[0]);
    Ok(golden)
}

/// Holds a plan to what it answered.
///
/// # Errors
/// It can't be loaded or run, or what it answers otherwise.
pub fn verify(
    device: &Device,
    library: &Library,
    model: &Model,
    plan: &[u8],
    key: &Key,
    golden: &Golden,
) -> Result<(), String> {
    let (networks, mut lane) = open(device, library, model, plan, key.max_batch, key.dla_core)?;
    let checked = Pictures::new(device)?.check(&mut lane, 0, &networks[0], golden);
    checked.map_err(|why| format!("it does not answer as when its plan was built: {why}"))
}

/// A lane for one plan alone, which is to go before its network.
fn open(
    device: &Device,
    library: &Library,
    model: &Model,
    plan: &[u8],
    max_batch: u16,
    dla_core: Option<u8>,
) -> Result<([Network; 1], Lane), String> {
    let networks = [Network::load(device, library, model, plan, &[], max_batch, dla_core)?];
    let made = Plan {
        device: device.clone(),
        max_batch,
        staging: Staging::new(device, 0, 0),
        shares_profiles: library.version().shares_profiles(),
        copies: Arc::default(),
    };
    let lane = Lane::new(&made, &networks, Place::default(), &Waker::new()).map_err(|(_, why)| why)?;
    Ok((networks, lane))
}

/// The pictures, where the device sees them.
#[derive(Debug)]
pub struct Pictures {
    memory: Pinned,
    layout: ImageLayout,
}

impl Pictures {
    /// Makes them: the same on every machine.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new(device: &Device) -> Result<Self, String> {
        let layout = ImageLayout::packed(PixelFormat::Rgb, SIZE.0, SIZE.1);
        let bytes = layout.extent().unwrap_or_default();
        let mut memory = device.pinned(PICTURES * bytes).map_err(|why| why.to_string())?;
        for (number, picture) in memory.bytes_mut().chunks_exact_mut(bytes).enumerate() {
            draw(number as u64, picture);
        }
        Ok(Self { memory, layout })
    }

    /// The picture of this number, for a model; numbers start over when they are used up.
    fn frame(&self, number: usize, network: &Network) -> Option<Frame> {
        let bytes = self.layout.extent()?;
        let address = self.memory.address() + (number % PICTURES * bytes) as u64;
        Frame::new(&self.layout, address, &network.input)
    }

    /// The answers of batches of this size: per picture, per output.
    fn answers(
        &self,
        lane: &mut Lane,
        model: usize,
        network: &Network,
        size: u16,
    ) -> Result<Vec<Vec<Vec<f32>>>, String> {
        let size = usize::from(size);
        let mut answers = Vec::new();
        for first in (0..PICTURES).step_by(size) {
            let frames: Option<Vec<_>> =
                (first..first + size).map(|number| self.frame(number, network)).collect();
            let frames = frames.ok_or("the kernels can't read the golden pictures")?;
            // SAFETY: the pictures are pinned, and stay until the answers are here.
            let outputs = unsafe { lane.answer(model, network, &frames) }?;
            let of = |index: usize| {
                let rows = outputs.iter().zip(network.rows());
                rows.map(|(output, rows)| sample(&output[index * rows.row..][..rows.row])).collect()
            };
            answers.extend((0..size).map(of));
        }
        Ok(answers)
    }

    /// Asks the model, to keep what it says.
    ///
    /// # Errors
    /// It can't be run, or says nothing finite.
    pub fn ask(&self, lane: &mut Lane, model: usize, network: &Network) -> Result<Golden, String> {
        let smallest = network.sizes().first().copied().unwrap_or(1);
        let mut answers = self.answers(lane, model, network, smallest)?;
        answers.truncate(PICTURES);
        if answers.iter().flatten().flatten().any(|value| !value.is_finite()) {
            return Err("what it answers to a test picture is not finite".to_owned());
        }
        Ok(Golden { answers })
    }

    /// Asks the model again, alone and with the largest batch.
    ///
    /// # Errors
    /// It can't be run, or where its answer differs from the golden one.
    pub fn check(
        &self,
        lane: &mut Lane,
        model: usize,
        network: &Network,
        golden: &Golden,
    ) -> Result<(), String> {
        let mut sizes = vec![network.sizes().first().copied().unwrap_or(1), network.largest()];
        sizes.dedup();
        for size in sizes {
            let answers = self.answers(lane, model, network, size)?;
            for (index, found) in answers.iter().enumerate() {
                let number = index % PICTURES;
                let kept = golden.answers.get(number).ok_or("its golden answers are for fewer pictures")?;
                compare(kept, found)
                    .map_err(|why| format!("picture {number} in a batch of {size}: {why}"))?;
            }
        }
        Ok(())
    }
}

/// A picture that has something of everything: slopes, edges and noise.
fn draw(number: u64, picture: &mut [u8]) {
    let mut random = Random::new(0x0ce1_1150 + number);
    let width = SIZE.0 as usize;
    for (index, pixel) in picture.chunks_exact_mut(3).enumerate() {
        let (x, y) = (index % width, index / width);
        let noise = random.bits();
        let block = (x / 40 + y / 40 + number as usize) % 2 * 90;
        let slopes = [x * 120 / width, y * 120 / width, (x + y) * 60 / width];
        for (channel, value) in pixel.iter_mut().enumerate() {
            *value = (slopes[channel] + block + (noise >> (8 * channel) & 31) as usize).min(255) as u8;
        }
    }
}

/// Some of a row's values, at equal distances.
fn sample(row: &[f32]) -> Vec<f32> {
    row.iter().step_by(row.len().div_ceil(VALUES).max(1)).copied().collect()
}

/// Holds an answer against the golden one, output by output.
fn compare(kept: &[Vec<f32>], found: &[Vec<f32>]) -> Result<(), String> {
    let sizes = |outputs: &[Vec<f32>]| outputs.iter().map(Vec::len).collect::<Vec<_>>();
    if sizes(kept) != sizes(found) {
        return Err(format!("{:?} values an output, golden are {:?}", sizes(found), sizes(kept)));
    }
    for (output, (kept, found)) in kept.iter().zip(found).enumerate() {
        let largest = kept.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let bound = TOLERANCE * largest.max(f32::MIN_POSITIVE);
        // What is not a number is within no bound.
        let is_close = |(kept, found): &(&f32, &f32)| (*kept - *found).abs() <= bound;
        let off: Vec<_> = kept.iter().zip(found).filter(|pair| !is_close(pair)).collect();
        if let Some((kept, found)) = off.first() {
            let count = off.len();
            return Err(format!(
                "output {output}: {count} of its values are off, the first {found} instead of {kept}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_the_same_everywhere() {
        let mut picture = vec![0; (SIZE.0 * SIZE.1 * 3) as usize];
        draw(0, &mut picture);
        let sum = |picture: &[u8]| picture.iter().map(|&value| u64::from(value)).sum::<u64>();
        let first = sum(&picture);
        assert_eq!(first, 25_886_812);
        draw(1, &mut picture);
        assert_ne!(sum(&picture), first);
    }

    #[test]
    fn an_answer_that_is_off_is_told() {
        let golden = vec![vec![1.0, -50.0, 0.0], vec![0.0; 2]];
        assert_eq!(compare(&golden, &golden), Ok(()));
        assert_eq!(compare(&golden, &[vec![1.9, -49.1, 0.9], vec![0.0; 2]]), Ok(()));
        let off = |outputs: [Vec<f32>; 2], says: &str| {
            let why = compare(&golden, &outputs).unwrap_err();
            assert!(why.contains(says), "{why}");
        };
        off(
            [vec![1.0, -48.9, 2.0], vec![0.0; 2]],
            "output 0: 2 of its values are off, the first -48.9 instead of -50",
        );
        off([vec![1.0, f32::NAN, 0.0], vec![0.0; 2]], "the first NaN instead of -50");
        off([vec![1.0, -50.0, 0.0], vec![0.0, 0.1]], "output 1");
        off([vec![1.0, -50.0], vec![0.0; 2]], "[2, 2] values an output, golden are [3, 2]");
        assert_eq!(sample(&vec![0.0; 1000]).len(), 250);
        assert_eq!(sample(&[7.0; 3]), [7.0; 3]);
    }
}
