//! Prompts told back with their probabilities (`echo` beside `logprobs`), as those ask who measure models over this API. Each token is
//! scored given all before it: by a next-token model as it reads, by one that fills masks at block size 1, with masks beside the text.
//! On the model's thread it is a task, called for one pass at a time, which hands on the orders in the end.

use std::sync::Arc;

use bd3::arch::{Arch, Objective};
use bd3::engine::{Engine, KeyValues};
use bd3::pass::{Ask, Cache, Denoiser, Filter, Lane, Place, Proposal, Query, propose};

use super::Served;
use super::error::ApiError;
use super::queue::{Order, Progress, Task};
use super::relay::Token;

/// Ids that are read in one pass.
const PIECE: usize = 64;

/// Refuses what has no probability for each token given all before it.
pub fn check(arch: &Arch) -> Result<(), ApiError> {
    if arch.objective == Objective::NextToken || arch.block_sizes().contains(&1) {
        return Ok(());
    }
    let expected = "false beside `logprobs`, since the model was not trained at block size 1";
    Err(ApiError::field("echo", expected, "true"))
}

/// The task that scores what these begin with and then orders them; `top`: alternatives of each token.
pub fn task(served: Arc<Served>, mut orders: Vec<Order>, top: usize) -> Task {
    let positions = orders.iter().map(|order| order.ids.len().next_multiple_of(PIECE)).max().unwrap_or(0);
    let bytes = positions.saturating_mul(served.bytes_per_position);
    let (mut next, mut prompt) = (0, None::<Prompt>);
    let turn = Box::new(move |engine: &Engine| {
        while let Some(order) = orders.get_mut(next) {
            if order.relay.is_over() {
                return Progress::Done;
            }
            // Choices of one prompt stand behind each other, and are scored once.
            if prompt.as_ref().is_none_or(|prompt| prompt.ids != order.ids) {
                prompt = Some(Prompt { cache: engine.cache(1), ids: order.ids.clone(), tokens: Vec::new() });
            }
            let Some(prompt) = &mut prompt else { continue };
            if prompt.tokens.len() == prompt.ids.len() {
                order.relay.scored(prompt.tokens.clone());
                next += 1;
                continue;
            }
            return match prompt.read(engine, top) {
                Ok(()) => Progress::Pass,
                Err(error) => {
                    orders.iter_mut().for_each(|order| order.relay.fail(error.to_string()));
                    Progress::Done
                }
            };
        }
        if !served.queue.has_room(orders.len()) {
            return Progress::Waits;
        }
        // Where the server ends meanwhile they are dropped, and their clients hear of it.
        let _ = served.queue.push(std::mem::take(&mut orders));
        Progress::Done
    });
    Task { bytes, turn }
}

/// A prompt that is read.
struct Prompt {
    /// At block size 1.
    cache: KeyValues,
    ids: Vec<u32>,
    /// By position, as far as it is read; none where nothing stands before.
    tokens: Vec<Option<Token>>,
}

impl Prompt {
    /// One pass.
    fn read(&mut self, engine: &Engine, top: usize) -> bd3::Result<()> {
        let start = self.cache.end();
        let piece = start..self.ids.len().min(start + PIECE);
        if engine.arch().objective == Objective::NextToken {
            self.tokens.resize(start + 1, None);
            return self.read_on(engine, piece, top);
        }
        let stored = &self.ids[piece];
        let open = vec![engine.mask_id(); stored.len()];
        let ask = Ask::new((0..stored.len()).collect(), vec![0.5; stored.len()], Filter::GREEDY);
        let ask = Ask { standing: stored.to_vec(), alternatives: top, ..ask };
        let lane = Lane { place: Place::Beside, ..Lane::new(&mut self.cache, stored, &open, &ask) };
        for proposals in engine.pass(&mut [lane])? {
            for (proposal, &id) in proposals.iter().zip(stored) {
                self.tokens.push((!self.tokens.is_empty()).then(|| token(id, proposal)));
            }
        }
        Ok(())
    }

    /// Each id gives the probability of the one behind it.
    fn read_on(&mut self, engine: &Engine, piece: std::ops::Range<usize>, top: usize) -> bd3::Result<()> {
        let (ids, mut scored) = (&self.ids, Vec::new());
        engine.read(&mut self.cache, &ids[piece.clone()], |i, logits| {
            if let Some(&id) = ids.get(piece.start + i + 1) {
                let (row, uniform, filter) = (i, 0.5, Filter::GREEDY);
                let query = Query {
                    row,
                    standing: id,
                    uniform,
                    filter,
                    alternatives: top,
                    mask_id: engine.mask_id(),
                    classes: None,
                };
                scored.push(propose(logits, &query).map(|proposal| Some(token(id, &proposal))));
            }
        })?;
        self.tokens.extend(scored.into_iter().collect::<bd3::Result<Vec<_>>>()?);
        Ok(())
    }
}

fn token(id: u32, proposal: &Proposal) -> Token {
    let alternatives = proposal.alternatives.iter().map(|&(id, prob)| (id, prob as f32)).collect();
    Token { id, prob: Some(proposal.standing as f32), alternatives }
}
