//! A constraint at work in a sample. Whatever rows a rule may choose, their tokens come out of one filling of the whole block that
//! leads to a text: so any of them may be kept, in any order, and none has to be taken back. Between blocks nothing has to be guessed:
//! what is committed leads to one state, and what may follow a block is every text that still fits.

use crate::constraint::{Constraint, Lattice, Slot, Weights};
use crate::error::{Error, Result};
use crate::pass::{Ask, Class, Classes, Filter, Proposal};

use super::Canvas;

/// See the module.
#[derive(Clone, Debug)]
pub struct Chain {
    constraint: Constraint,
    /// Position up to which text may come.
    limit: usize,
    /// Row of the open block from which the constraint holds: before it stands the prompt.
    first: usize,
    lattice: Option<Lattice>,
    /// A number for each row of the lattice.
    uniforms: Vec<f64>,
    /// Rows that the rule and the revision ask for.
    wanted: Vec<usize>,
    /// How many rows text may stand in.
    asked: usize,
    filter: Filter,
    alternatives: usize,
    /// A position, and the state before it.
    reached: (usize, u32),
}

impl Chain {
    /// For a text that ends at `limit` at the latest.
    pub fn new(constraint: Constraint, limit: usize) -> Self {
        Self {
            constraint,
            limit,
            first: 0,
            lattice: None,
            uniforms: Vec::new(),
            wanted: Vec::new(),
            asked: 0,
            filter: Filter::NONE,
            alternatives: 0,
            reached: (0, 0),
        }
    }

    /// Looks at what is known of the open block.
    pub fn survey(&mut self, canvas: &Canvas) {
        let (given, open_block) = (canvas.given().len(), canvas.open_block());
        let start = open_block.start();
        self.first = given.saturating_sub(start);
        let (wanted, most) = (open_block.wanted().len(), open_block.ids().len().min(self.limit - start));
        let rows = wanted.min(most);
        let classes = self.constraint.class_of();
        let slot = |&id: &u32| match id == open_block.mask_id() {
            true => Slot::Open,
            false => Slot::Fixed(classes.get(id as usize).copied().unwrap_or(u32::MAX)),
        };
        let slots: Vec<Slot> = open_block.ids()[self.first..rows].iter().map(slot).collect();
        // Committed text does not change, so only what came since is followed.
        let (from, state) = if self.reached.0 <= start { self.reached } else { (given, 0) };
        let since = canvas.text().get(from.max(given)..start).unwrap_or_default();
        let before = self.constraint.follow(state, since);
        self.reached = (start, before.unwrap_or(0));
        self.lattice = before.map(|state| {
            let mut lattice = Lattice::new(&self.constraint, state, slots, self.limit - start - rows);
            // Rows were given up since the text ends before them: so it has to.
            if rows < most {
                lattice.must_have_ended(&self.constraint);
            }
            lattice
        });
    }

    /// Gives up the rows of the open block that no text can reach any more, as long as what is known stays so; gives where they begin.
    pub fn cut(&mut self) -> Option<usize> {
        self.lattice.as_mut().map(|lattice| self.first + lattice.cut(&self.constraint))
    }

    /// Widens what is asked: a constraint has to know all masked rows, whichever are wanted. `uniform` gives random numbers.
    pub fn widen(&mut self, ask: Ask, canvas: &Canvas, mut uniform: impl FnMut() -> f64) -> Ask {
        let slots = self.lattice.as_ref().map_or(0, |lattice| lattice.slots().len());
        self.uniforms = (0..slots).map(|_| uniform()).collect();
        (self.filter, self.alternatives) = (ask.filter, ask.alternatives);
        let mut all = canvas.open_block().masked();
        all.extend(ask.rows.iter().copied().filter(|row| !all.contains(row)).collect::<Vec<_>>());
        all.sort_unstable();
        let place = |row: &usize| ask.rows.binary_search(row).ok();
        let uniforms =
            all.iter().map(|row| place(row).map_or_else(&mut uniform, |place| ask.uniforms[place])).collect();
        let allowed = |&row: &usize| match (&self.lattice, row.checked_sub(self.first)) {
            (Some(lattice), Some(row)) if row < slots => lattice.allowed(&self.constraint, row),
            _ => Vec::new(),
        };
        let allowed: Vec<Vec<bool>> = all.iter().map(allowed).collect();
        // Where nothing may stand all text has ended.
        let allowed: Vec<Vec<bool>> =
            allowed.into_iter().map(|row| if row.contains(&true) { row } else { Vec::new() }).collect();
        self.asked = allowed.iter().filter(|row| !row.is_empty()).count();
        let classes = Classes { of: self.constraint.class_of().clone(), allowed };
        self.wanted.clone_from(&ask.rows);
        Ask { rows: all, uniforms, classes: Some(classes), ..ask }
    }

    /// What the proposals become once only whole texts count: for the wanted rows alone. Tokens are drawn together; probabilities,
    /// entropy and alternatives are those of the row, given the constraint.
    ///
    /// # Errors
    /// When the model does not tell of classes as it was asked to, or what is written leads to no text.
    pub fn condition(&self, proposals: &[Proposal]) -> Result<Vec<Proposal>> {
        let lattice = self.lattice.as_ref().filter(|lattice| !lattice.is_empty()).ok_or_else(left)?;
        let constraint = &self.constraint;
        self.check(lattice, proposals)?;
        let rows: Vec<usize> = self.wanted.iter().filter_map(|row| row.checked_sub(self.first)).collect();
        let sum = |of: fn(&Class) -> f64| {
            let sums = lattice.sum(constraint, &self.weights(lattice, proposals, of));
            if lattice.is_possible(&sums) { Ok(sums) } else { Err(left()) }
        };
        let raw = sum(|class| class.raw)?;
        let raw_probs = lattice.marginals(constraint, &raw, &rows);
        let (drawn, probs) = if self.filter.temperature == 0.0 {
            let greatest = lattice.greatest(constraint, &self.weights(lattice, proposals, |class| class.weight));
            (lattice.best(constraint, &greatest), None)
        } else if self.filter == Filter::NONE {
            (lattice.draw(constraint, &raw, &self.uniforms), None)
        } else {
            let filtered = sum(|class| class.weight)?;
            let probs = lattice.marginals(constraint, &filtered, &rows);
            (lattice.draw(constraint, &filtered, &self.uniforms), Some(probs))
        };
        let drawn = drawn.ok_or_else(left)?;
        let given = |proposal: &Proposal| {
            let Some(row) = self.open_row(lattice, proposal.row) else { return Ok(proposal.clone()) };
            let Some(drawn) = drawn[row] else { return Ok(behind(proposal, &raw_probs[row])) };
            let class = proposal.classes.iter().find(|class| class.class == drawn).ok_or_else(left)?;
            let prob = match (&probs, self.filter.temperature) {
                (_, 0.0) => 1.0,
                (Some(probs), _) => probs[row][class.class as usize] * class.token_weight,
                (None, _) => raw_probs[row][class.class as usize] * class.token_raw,
            };
            Ok(Proposal { prob: prob.min(1.0), ..self.told(proposal, class, &raw_probs[row]) })
        };
        proposals.iter().filter(|proposal| self.wanted.contains(&proposal.row)).map(given).collect()
    }

    /// The row of the lattice that a row of the open block is, if it is one to be drawn.
    fn open_row(&self, lattice: &Lattice, row: usize) -> Option<usize> {
        row.checked_sub(self.first).filter(|&row| lattice.slots().get(row) == Some(&Slot::Open))
    }

    /// Every row that text may stand in must come with its classes.
    fn check(&self, lattice: &Lattice, proposals: &[Proposal]) -> Result<()> {
        let told = proposals.iter().filter(|proposal| {
            self.open_row(lattice, proposal.row).is_some()
                && proposal.classes.last().is_some_and(|last| (last.class as usize) < self.constraint.classes())
                && proposal.classes.is_sorted_by_key(|class| class.class)
        });
        let (told, open) = (told.count(), self.asked);
        if told != open {
            let what = "the model told of the classes of tokens that a constraint asks for";
            return Err(Error::Run(format!("{what}: expected {open} rows, found {told}")));
        }
        Ok(())
    }

    fn weights(&self, lattice: &Lattice, proposals: &[Proposal], of: fn(&Class) -> f64) -> Weights {
        let mut weights = vec![Vec::new(); self.uniforms.len()];
        for proposal in proposals {
            let Some(row) = self.open_row(lattice, proposal.row) else { continue };
            let row = &mut weights[row];
            row.resize(self.constraint.classes(), f64::NEG_INFINITY);
            proposal.classes.iter().for_each(|class| row[class.class as usize] = of(class));
        }
        weights
    }

    /// A proposal whose token is that of `class`, with the model's own numbers replaced by those given the constraint. `probs`: by class.
    fn told(&self, proposal: &Proposal, class: &Class, probs: &[f64]) -> Proposal {
        let mut entropy = mixed(ended(probs), proposal.entropy);
        let mut tokens: Vec<(u32, f64)> = Vec::new();
        for other in &proposal.classes {
            let prob = probs[other.class as usize];
            entropy += mixed(prob, other.entropy);
            tokens.extend(other.best.iter().map(|&(id, share)| (id, prob * share)).filter(|(_, prob)| *prob > 0.0));
        }
        tokens.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        // Where nothing else may stand there, the model's own choice comes second, with nothing.
        let own = if proposal.token == class.token { proposal.runner_up.0 } else { proposal.token };
        let other = tokens.iter().copied().find(|(id, _)| *id != class.token);
        tokens.truncate(self.alternatives);
        Proposal {
            token: class.token,
            raw_prob: (probs[class.class as usize] * class.token_raw).min(1.0),
            entropy: entropy.max(0.0),
            runner_up: other.unwrap_or((own, 0.0)),
            alternatives: tokens,
            classes: Vec::new(),
            ..*proposal
        }
    }
}

/// The probability that a text has ended before a row, from the probabilities of classes there.
fn ended(probs: &[f64]) -> f64 {
    // What rounding leaves is nothing.
    Some(1.0 - probs.iter().sum::<f64>()).filter(|&rest| rest > 1e-9).unwrap_or(0.0)
}

/// What a part of this probability, with an entropy of its own, adds to the entropy of the whole.
fn mixed(prob: f64, entropy: f64) -> f64 {
    if prob > 0.0 { prob * (entropy - prob.ln()) } else { 0.0 }
}

/// A row behind the end holds what the model would write there, as probable as that and the end.
fn behind(proposal: &Proposal, probs: &[f64]) -> Proposal {
    let ended = ended(probs);
    Proposal {
        raw_prob: proposal.raw_prob * ended,
        prob: proposal.prob * ended,
        classes: Vec::new(),
        ..proposal.clone()
    }
}

fn left() -> Error {
    Error::Run("the text has left its constraint".into())
}
