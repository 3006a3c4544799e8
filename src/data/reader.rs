//! The order in which a run reads its rows: each row's source is drawn by weight, each source's rows are shuffled anew in
//! every epoch. Row i of a run is a function of (seed, sources, weights) and i, never of the batch size; a [`Cursor`]
//! stores where a run is, and a reader set to it goes on with the very next row.

use serde::{Deserialize, Serialize};

use super::pack::{Batch, Packing};
use crate::rng::Rng;
use crate::{Error, Result};

/// What a reader does with short rows (at the end of a stream or a document).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// They are rows like others; the loss must heed [`Batch::valid`].
    Keep,
    /// They are left out of every epoch, for losses that want full rows.
    Drop,
}

/// One of several texts that a run reads.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its rows.
    pub packing: Packing,
    /// Its share of the rows drawn, relative to the other sources' weights.
    pub weight: f64,
}

/// Where a run is in its data, as a checkpoint stores it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// Rows read so far.
    pub row: u64,
    /// Each source's place, in the reader's order.
    pub sources: Vec<Place>,
}

/// Where a run is in one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Number of rows, to notice that the data changed.
    pub rows: usize,
    /// The text's [`Shard::digest`](super::Shard::digest), for the same; unknown where a state was written without.
    #[serde(default)]
    pub digest: Option<String>,
    /// The weight in force.
    pub weight: f64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Rows read in this epoch.
    pub taken: usize,
}

/// Reads rows in the order of a run.
#[derive(Clone, Debug)]
pub struct Reader {
    packings: Vec<Packing>,
    /// The rows that take part, in the order of the current epoch, by source.
    orders: Vec<Vec<u32>>,
    cursor: Cursor,
    rng: Rng,
    tail: Tail,
    length: usize,
}

impl Reader {
    /// A reader at row 0. `rng` is the run's generator; it is split by name and not advanced.
    ///
    /// # Errors
    /// No source, rows of different lengths, a source without rows, or weights of which none is positive.
    pub fn new(sources: Vec<Source>, rng: &Rng, tail: Tail) -> Result<Self> {
        let Some(length) = sources.first().map(|source| source.packing.length()) else {
            return Err(Error::value("sources", "at least one", "none"));
        };
        let mut reader = Self {
            packings: Vec::new(),
            orders: Vec::new(),
            cursor: Cursor { row: 0, sources: Vec::new() },
            rng: rng.split("data"),
            tail,
            length,
        };
        let weights: Vec<f64> = sources.iter().map(|source| source.weight).collect();
        for source in sources {
            let path = source.packing.shard().path();
            if source.packing.length() != length {
                let found = source.packing.length().to_string();
                return Err(Error::key(path, "length", format!("rows of {length} as in the first source"), found));
            }
            let rows = (0..source.packing.rows()).filter(|&row| takes_part(&source.packing, row, tail)).count();
            if rows == 0 || u32::try_from(source.packing.rows()).is_err() {
                let found = format!("{rows} full rows in {} ids", source.packing.shard().len());
                return Err(Error::key(path, "rows", format!("1 to {} rows of {length}", u32::MAX), found));
            }
            let digest = Some(source.packing.shard().digest());
            reader.cursor.sources.push(Place { rows, digest, weight: 0.0, epoch: 0, taken: 0 });
            reader.packings.push(source.packing);
        }
        reader.set_weights(&weights)?;
        reader.orders = (0..reader.packings.len()).map(|source| reader.order(source, 0)).collect();
        Ok(reader)
    }

    /// Changes the sources' weights from the next row on.
    ///
    /// # Errors
    /// Another number of weights than of sources, a negative weight, or none that is positive.
    pub fn set_weights(&mut self, weights: &[f64]) -> Result<()> {
        let count = self.cursor.sources.len();
        let sum: f64 = weights.iter().sum();
        let legal = weights.iter().all(|weight| *weight >= 0.0) && sum > 0.0 && sum.is_finite();
        if weights.len() != count || !legal {
            let expected = format!("{count} weights, none negative, one positive");
            return Err(Error::value("weights", expected, format!("{weights:?}")));
        }
        for (place, weight) in self.cursor.sources.iter_mut().zip(weights) {
            place.weight = *weight;
        }
        Ok(())
    }

    /// The next rows of the run.
    pub fn next_batch(&mut self, rows: usize) -> Batch {
        let mut batch = Batch::new(self.length);
        for _ in 0..rows {
            let (source, row) = self.advance();
            self.packings[source].push(row, &mut batch);
        }
        batch
    }

    /// Where the run is.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Goes to where another reader of the same seed and sources was.
    ///
    /// # Errors
    /// A cursor of other sources.
    pub fn seek(&mut self, cursor: &Cursor) -> Result<()> {
        if cursor.sources.len() != self.packings.len() {
            let expected = format!("{} sources", self.packings.len());
            return Err(Error::value("data cursor", expected, cursor.sources.len().to_string()));
        }
        for (packing, (now, then)) in self.packings.iter().zip(self.cursor.sources.iter().zip(&cursor.sources)) {
            if now.rows != then.rows || then.taken > then.rows {
                let expected = format!("{} rows, as when the run was stopped", then.rows);
                return Err(Error::key(packing.shard().path(), "rows", expected, now.rows.to_string()));
            }
            if then.digest.is_some() && then.digest != now.digest {
                let expected = "the text that the run was started with";
                return Err(Error::file(packing.shard().path(), expected, "another one of as many rows"));
            }
        }
        let weights: Vec<f64> = cursor.sources.iter().map(|place| place.weight).collect();
        self.set_weights(&weights)?;
        let known = std::mem::replace(&mut self.cursor, cursor.clone());
        for (place, known) in self.cursor.sources.iter_mut().zip(known.sources) {
            place.digest = known.digest;
        }
        self.orders = (0..self.packings.len()).map(|s| self.order(s, self.cursor.sources[s].epoch)).collect();
        Ok(())
    }

    /// The next row of the run: its source and its index there.
    fn advance(&mut self) -> (usize, usize) {
        let source = self.draw_source();
        self.cursor.row += 1;
        if self.cursor.sources[source].taken == self.cursor.sources[source].rows {
            self.cursor.sources[source].epoch += 1;
            self.cursor.sources[source].taken = 0;
            self.orders[source] = self.order(source, self.cursor.sources[source].epoch);
        }
        let place = &mut self.cursor.sources[source];
        let row = self.orders[source][place.taken];
        place.taken += 1;
        (source, row as usize)
    }

    fn draw_source(&self) -> usize {
        let weights = self.cursor.sources.iter().map(|place| place.weight);
        let mut point = self.rng.split_at("source", self.cursor.row).uniform() * weights.clone().sum::<f64>();
        let mut last = 0;
        for (source, weight) in weights.enumerate().filter(|(_, weight)| *weight > 0.0) {
            last = source;
            if point < weight {
                return source;
            }
            point -= weight;
        }
        last
    }

    fn order(&self, source: usize, epoch: u64) -> Vec<u32> {
        let packing = &self.packings[source];
        let mut rows: Vec<u32> =
            (0..packing.rows()).filter(|&row| takes_part(packing, row, self.tail)).map(|row| row as u32).collect();
        self.rng.split_at("order", source as u64).split_at("epoch", epoch).shuffle(&mut rows);
        rows
    }
}

fn takes_part(packing: &Packing, row: usize, tail: Tail) -> bool {
    tail == Tail::Keep || packing.valid(row) == packing.length()
}
