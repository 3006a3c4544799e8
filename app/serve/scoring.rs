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

/// The task that scores what these begin with and then orders them; `top`: alternatives of each token. Refuses what would never have room.
pub fn task(served: &Arc<Served>, orders: Vec<Order>, top: usize) -> Result<Box<dyn Task>, ApiError> {
    let positions = orders.iter().map(|order| order.ids.len().next_multiple_of(PIECE)).max().unwrap_or(0);
    let bytes = positions.saturating_mul(served.bytes_per_position);
    served.check_bytes(bytes)?;
    Ok(Box::new(Scoring { served: served.clone(), orders, top, bytes, next: 0, prompt: None }))
}

/// Orders that are scored one after the other, and handed on together.
struct Scoring {
    served: Arc<Served>,
    orders: Vec<Order>,
    top: usize,
    /// Of the longest prompt's keys and values.
    bytes: usize,
    /// Which order is the next to be told.
    next: usize,
    prompt: Option<Prompt>,
}

impl Task for Scoring {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn orders(&self) -> usize {
        self.orders.len()
    }

    /// All of them have one client and one time.
    fn is_over(&self) -> bool {
        self.orders.iter().any(|order| order.relay.is_over())
    }

    fn turn(&mut self, engine: &Engine) -> Progress {
        if self.is_over() {
            return Progress::Done;
        }
        while let Some(order) = self.orders.get_mut(self.next) {
            // Choices of one prompt stand behind each other, and are scored once.
            if self.prompt.as_ref().is_none_or(|prompt| prompt.ids != order.ids) {
                self.prompt = Some(Prompt { cache: engine.cache(1), ids: order.ids.clone(), tokens: Vec::new() });
            }
            let Some(prompt) = &mut self.prompt else { continue };
            if prompt.tokens.len() == prompt.ids.len() {
                order.relay.scored(prompt.tokens.clone());
                self.next += 1;
                continue;
            }
            return match prompt.read(engine, self.top) {
                Ok(()) => Progress::Pass,
                Err(error) => {
                    self.orders.iter_mut().for_each(|order| order.relay.fail(error.to_string()));
                    Progress::Done
                }
            };
        }
        self.served.queue.hand_on(std::mem::take(&mut self.orders));
        Progress::Done
    }
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
