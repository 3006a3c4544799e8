//! Which rows a pass computes, where they stand, and what each sees. Knows ids and positions, no numbers.

use std::ops::Range;

use super::attention::{ROWS, Sight};
use super::cache::KeyValues;
use crate::arch::{Arch, Objective};
use crate::error::{Error, Result};
use crate::pass::{Cache, Lane, Place};

/// The rows of one pass, lane by lane: first what is stored, then what is open.
#[derive(Default)]
pub struct Plan {
    /// By row.
    pub ids: Vec<u32>,
    /// By row: its place in its lane's cache memory, and what it sees there.
    pub places: Vec<(usize, Sight)>,
    /// By row: where it stands in the text.
    positions: Vec<usize>,
    /// Cosines by row, `[rows][rotary_dim / 2]`.
    pub cosines: Vec<f32>,
    /// Sines likewise.
    pub sines: Vec<f32>,
    /// Rows that somebody asks for.
    pub asked: Vec<usize>,
    /// By lane.
    pub lanes: Vec<LanePlan>,
    /// Tiles of all rows, for every layer but the last.
    pub all: Tiles,
    /// Tiles of the rows asked for, for the last layer.
    pub last: Tiles,
}

/// The rows of one lane.
#[derive(Clone, Debug)]
pub struct LanePlan {
    pub rows: Range<usize>,
}

/// Attention cut into tiles of one lane and one head of keys and values.
#[derive(Default)]
pub struct Tiles {
    /// The rows, lane by lane.
    pub rows: Vec<usize>,
    pub tiles: Vec<Tile>,
}

/// Up to [`ROWS`] queries that meet the same keys: query `q` is that of row `rows[first + q / group]`, head `q % group` of the group
/// of heads that share them.
#[derive(Clone, Debug)]
pub struct Tile {
    pub lane: usize,
    pub head: usize,
    /// Where the lane's rows begin in [`Tiles::rows`].
    pub first: usize,
    pub queries: Range<usize>,
}

impl Plan {
    /// Plans a pass, keeping the memory of the one before.
    ///
    /// # Errors
    /// When a lane stores a part of a block, or asks a next-token model for what it does not have; an id beyond the vocabulary.
    pub fn make(&mut self, arch: &Arch, frequencies: &[f32], lanes: &[Lane<'_, KeyValues>]) -> Result<()> {
        self.clear();
        for lane in lanes {
            self.lane(arch, lane)?;
        }
        if let Some(id) = self.ids.iter().find(|&&id| id as usize >= arch.vocab) {
            return Err(Error::Run(format!("id {id} is beyond the vocabulary of {}", arch.vocab)));
        }
        for &position in &self.positions {
            for frequency in frequencies {
                let (sine, cosine) = f64::from(position as f32 * frequency).sin_cos();
                self.cosines.push(cosine as f32);
                self.sines.push(sine as f32);
            }
        }
        let heads = (arch.kv_heads(), arch.heads / arch.kv_heads());
        self.all.cut(&self.lanes, |rows| rows.clone().collect::<Vec<_>>(), heads);
        let asked = &self.asked;
        let of_lane = |rows: &Range<usize>| asked.iter().copied().filter(|row| rows.contains(row)).collect();
        self.last.cut(&self.lanes, of_lane, heads);
        Ok(())
    }

    /// Asks for every row, stored ones too.
    pub fn ask_all(&mut self, arch: &Arch) {
        self.asked.clear();
        self.asked.extend(0..self.ids.len());
        let heads = (arch.kv_heads(), arch.heads / arch.kv_heads());
        self.last.cut(&self.lanes, |rows| rows.clone().collect::<Vec<_>>(), heads);
    }

    fn clear(&mut self) {
        self.ids.clear();
        self.places.clear();
        self.positions.clear();
        self.cosines.clear();
        self.sines.clear();
        self.asked.clear();
        self.lanes.clear();
    }

    fn lane(&mut self, arch: &Arch, lane: &Lane<'_, KeyValues>) -> Result<()> {
        let (first, block) = (self.ids.len(), lane.cache.block());
        let stored = lane.store.len();
        if arch.objective == Objective::NextToken && block != 1 {
            return Err(Error::Run(format!("a next-token model stores blocks of 1, not of {block}")));
        }
        if arch.objective == Objective::NextToken && lane.place == Place::Beside {
            let expected = "expected a model that fills masks, found one that predicts the next token";
            return Err(Error::Run(format!("ids open beside stored ones: {expected}")));
        }
        if let Some(row) = lane.ask.rows.iter().find(|&&row| row >= lane.open.len()) {
            return Err(Error::Run(format!("row {row} is asked for, {} are open", lane.open.len())));
        }
        if !stored.is_multiple_of(block) {
            return Err(Error::Run(format!("{stored} ids to store are not whole blocks of {block}")));
        }
        let (end, position) = (lane.cache.span().1, lane.cache.end());
        self.ids.extend(lane.store);
        self.positions.extend(position..position + stored);
        // A stored row sees its own block and all before it.
        self.places.extend((0..stored).map(|i| (end + i, Sight::before(end + (i / block + 1) * block))));
        if arch.objective == Objective::NextToken {
            // A shifted model predicts the open position from the last stored one; a mask row means nothing to it.
            if !lane.ask.rows.is_empty() && (stored == 0 || lane.open.len() > 1) {
                return Err(Error::Run("a next-token model stores at least one id and opens one position".into()));
            }
            self.asked.extend(lane.ask.rows.iter().map(|_| self.ids.len() - 1));
        } else {
            self.asked.extend(lane.ask.rows.iter().map(|row| self.ids.len() + row));
            self.ids.extend(lane.open);
            self.open(lane, (end + stored, position + stored))?;
        }
        self.lanes.push(LanePlan { rows: first..self.ids.len() });
        Ok(())
    }
}

impl Plan {
    /// Places of a lane's open rows; what it stores ends there, in memory and in the text.
    fn open(&mut self, lane: &Lane<'_, KeyValues>, (place, position): (usize, usize)) -> Result<()> {
        let (block, count) = (lane.cache.block(), lane.open.len());
        if lane.place == Place::After {
            self.positions.extend(position..position + count);
            self.places.extend((place..place + count).map(|row| (row, Sight::before(place + count))));
            return Ok(());
        }
        let stored = lane.store.len();
        if !count.is_multiple_of(block) || count > stored {
            let expected = format!("expected whole blocks of {block} and at most the {stored} ids that are stored");
            return Err(Error::Run(format!("ids open beside stored ones: {expected}, found {count}")));
        }
        self.positions.extend(position - count..position);
        self.places.extend((0..count).map(|i| {
            let first = i / block * block;
            let own = (place + first, place + first + block);
            (place + i, Sight { end: place - count + first, own })
        }));
        Ok(())
    }
}

impl Tiles {
    fn cut(
        &mut self,
        lanes: &[LanePlan],
        wanted: impl Fn(&Range<usize>) -> Vec<usize>,
        (heads, group): (usize, usize),
    ) {
        self.rows.clear();
        self.tiles.clear();
        for (lane, part) in lanes.iter().enumerate() {
            let first = self.rows.len();
            self.rows.extend(wanted(&part.rows));
            let queries = (self.rows.len() - first) * group;
            for head in 0..heads {
                for start in (0..queries).step_by(ROWS) {
                    self.tiles.push(Tile { lane, head, first, queries: start..queries.min(start + ROWS) });
                }
            }
        }
    }
}
