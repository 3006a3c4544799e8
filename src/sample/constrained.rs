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
    filter: Filter,
}

impl Chain {
    /// For a text that ends at `limit` at the latest.
    pub fn new(constraint: Constraint, limit: usize) -> Self {
        let (lattice, uniforms, wanted) = (None, Vec::new(), Vec::new());
        Self { constraint, limit, first: 0, lattice, uniforms, wanted, filter: Filter::NONE }
    }

    /// Widens what is asked: a constraint has to know all masked rows, whichever are wanted. `uniform` gives random numbers.
    pub fn widen(&mut self, ask: Ask, canvas: &Canvas, mut uniform: impl FnMut() -> f64) -> Ask {
        let (given, open_block) = (canvas.given().len(), canvas.open_block());
        let start = open_block.start();
        self.first = given.saturating_sub(start);
        let rows = open_block.ids().len().min(self.limit - start);
        let classes = self.constraint.class_of();
        let slot = |&id: &u32| match id == open_block.mask_id() {
            true => Slot::Open,
            false => Slot::Fixed(classes.get(id as usize).copied().unwrap_or(u32::MAX)),
        };
        let slots: Vec<Slot> = open_block.ids()[self.first..rows].iter().map(slot).collect();
        self.uniforms = slots.iter().map(|_| uniform()).collect();
        let before = self.constraint.follow(0, canvas.text().get(given..start).unwrap_or_default());
        self.lattice = before.map(|state| Lattice::new(&self.constraint, state, slots, self.limit - start - rows));
        self.filter = ask.filter;
        let mut all = open_block.masked();
        all.extend(ask.rows.iter().copied().filter(|row| !all.contains(row)).collect::<Vec<_>>());
        all.sort_unstable();
        let place = |row: &usize| ask.rows.binary_search(row).ok();
        let uniforms =
            all.iter().map(|row| place(row).map_or_else(&mut uniform, |place| ask.uniforms[place])).collect();
        let allowed = |&row: &usize| match &self.lattice {
            Some(lattice) if (self.first..rows).contains(&row) => lattice.allowed(&self.constraint, row - self.first),
            _ => Vec::new(),
        };
        let classes = Classes { of: classes.clone(), allowed: all.iter().map(allowed).collect() };
        self.wanted.clone_from(&ask.rows);
        Ask { rows: all, uniforms, classes: Some(classes), ..ask }
    }

    /// What the proposals become once only whole texts count: for the wanted rows alone. Tokens are drawn together; probabilities,
    /// entropy and alternatives are those of the row, given the constraint.
    ///
    /// # Errors
    /// When what is written leads to no text.
    pub fn condition(&self, proposals: &[Proposal]) -> Result<Vec<Proposal>> {
        let lattice = self.lattice.as_ref().filter(|lattice| !lattice.is_empty());
        let lattice = lattice.ok_or_else(|| Error::Run("the text has left its constraint".into()))?;
        let weights = |of: fn(&Class) -> f64| -> Weights {
            let mut weights = vec![Vec::new(); self.uniforms.len()];
            for proposal in proposals.iter().filter(|proposal| !proposal.classes.is_empty()) {
                let row = &mut weights[proposal.row - self.first];
                row.resize(self.constraint.classes(), 0.0);
                proposal.classes.iter().for_each(|class| row[class.class as usize] = of(class));
            }
            weights
        };
        let rows: Vec<usize> = self.wanted.iter().filter_map(|row| row.checked_sub(self.first)).collect();
        let raw = weights(|class| class.raw);
        let sums = lattice.sum(&self.constraint, &raw);
        let raw_probs = lattice.marginals(&self.constraint, &sums, &rows);
        let (drawn, probs) = if self.filter.temperature == 0.0 {
            let best = weights(|class| class.weight);
            (lattice.best(&self.constraint, &lattice.greatest(&self.constraint, &best)), None)
        } else if self.filter == Filter::NONE {
            (lattice.draw(&self.constraint, &sums, &self.uniforms), None)
        } else {
            let filtered = weights(|class| class.weight);
            let sums = lattice.sum(&self.constraint, &filtered);
            let probs = lattice.marginals(&self.constraint, &sums, &rows);
            (lattice.draw(&self.constraint, &sums, &self.uniforms), Some(probs))
        };
        let wanted = proposals.iter().filter(|proposal| self.wanted.contains(&proposal.row));
        let conditioned = wanted.map(|proposal| {
            if proposal.classes.is_empty() {
                return Ok(proposal.clone());
            }
            let row = proposal.row - self.first;
            let class = drawn.get(row).and_then(|drawn| proposal.classes.iter().find(|class| class.class == *drawn));
            let class = class.ok_or_else(|| Error::Run("the text has left its constraint".into()))?;
            let prob = match (&probs, self.filter.temperature) {
                (_, 0.0) => 1.0,
                (Some(probs), _) => probs[row][class.class as usize] * class.token_weight,
                (None, _) => raw_probs[row][class.class as usize] * class.token_raw,
            };
            Ok(Proposal { prob, ..self.told(proposal, class, &raw_probs[row]) })
        });
        conditioned.collect()
    }

    /// A proposal whose token is that of `class`, with the model's own numbers replaced by those given the constraint. `probs`: by class.
    fn told(&self, proposal: &Proposal, class: &Class, probs: &[f64]) -> Proposal {
        let mut best = [(class.token, 0.0); 2];
        let mut entropy = 0.0;
        for other in &proposal.classes {
            let prob = probs[other.class as usize];
            entropy += if prob > 0.0 { prob * (other.entropy - prob.ln()) } else { 0.0 };
            for (id, share) in other.best {
                if prob * share > best[0].1 {
                    best = [(id, prob * share), best[0]];
                } else if prob * share > best[1].1 {
                    best[1] = (id, prob * share);
                }
            }
        }
        let class_of = self.constraint.class_of();
        let given = |&(id, prob): &(u32, f64)| {
            let class = *class_of.get(id as usize)?;
            let place = proposal.classes.binary_search_by_key(&class, |class| class.class).ok()?;
            let prob = prob * (probs[class as usize] / proposal.classes[place].raw);
            (prob > 0.0).then_some((id, prob))
        };
        let mut alternatives: Vec<(u32, f64)> = proposal.alternatives.iter().filter_map(given).collect();
        alternatives.sort_by(|a, b| b.1.total_cmp(&a.1));
        Proposal {
            token: class.token,
            raw_prob: (probs[class.class as usize] * class.token_raw).min(1.0),
            entropy,
            runner_up: if best[0].0 == class.token { best[1] } else { best[0] },
            alternatives,
            classes: Vec::new(),
            ..*proposal
        }
    }
}
