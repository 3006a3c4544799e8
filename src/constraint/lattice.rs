//! The rows of a block under a constraint: which classes each may still take, and what becomes of the model's independent
//! distributions once only whole texts count. Given its rows, a machine's state before each of them is a Markov chain, so that sums
//! over all fillings of the block are sums along it: exact, and linear in rows, states and classes.

use super::Constraint;

/// A row of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// To be drawn.
    Open,
    /// A token of this class stands there.
    Fixed(u32),
}

/// The states that the machine may be in before each row, such that what stands before leads there and an end can still be reached.
#[derive(Clone, Debug)]
pub struct Lattice {
    slots: Vec<Slot>,
    /// One more than rows; states ascending.
    columns: Vec<Vec<u32>>,
}

/// What is known of the open rows: by row, by class, a weight; none for a fixed row.
pub type Weights = Vec<Vec<f64>>;

/// A way from one state to the next over a row.
struct Way<'a> {
    /// Place in the next column.
    to: usize,
    classes: &'a [u32],
}

/// Sums over all fillings, and what they say.
pub struct Sums {
    /// By column and state: logarithm of the sum (or the greatest) over what may follow.
    behind: Vec<Vec<f64>>,
}

impl Lattice {
    /// `start`: the state before the first row. `left`: how many tokens may come after the last one.
    pub fn new(constraint: &Constraint, start: u32, slots: Vec<Slot>, left: usize) -> Self {
        let states = constraint.states();
        let mut columns = vec![vec![start]];
        for &slot in &slots {
            let before = &columns[columns.len() - 1];
            let mut after: Vec<u32> = match slot {
                Slot::Open => before.iter().flat_map(|&s| states[s as usize].edges.iter().map(|&(to, _)| to)).collect(),
                Slot::Fixed(class) => before.iter().filter_map(|&s| states[s as usize].next(class)).collect(),
            };
            after.sort_unstable();
            after.dedup();
            columns.push(after);
        }
        let last = slots.len();
        columns[last].retain(|&state| states[state as usize].least <= left);
        let mut lattice = Self { slots, columns };
        for row in (0..last).rev() {
            let kept: Vec<u32> = lattice.columns[row]
                .iter()
                .copied()
                .filter(|&state| lattice.ways(constraint, row, state).next().is_some())
                .collect();
            lattice.columns[row] = kept;
        }
        lattice
    }

    /// Is there no way through?
    pub fn is_empty(&self) -> bool {
        self.columns[0].is_empty()
    }

    fn ways<'a>(&'a self, constraint: &'a Constraint, row: usize, state: u32) -> impl Iterator<Item = Way<'a>> {
        let (slot, after) = (self.slots[row], &self.columns[row + 1]);
        constraint.states()[state as usize].edges.iter().filter_map(move |(to, classes)| {
            let to = after.binary_search(to).ok()?;
            let classes = match slot {
                Slot::Open => &classes[..],
                Slot::Fixed(class) => std::slice::from_ref(&classes[classes.binary_search(&class).ok()?]),
            };
            Some(Way { to, classes })
        })
    }

    /// By class: may it stand in an open row? Empty for a fixed one.
    pub fn allowed(&self, constraint: &Constraint, row: usize) -> Vec<bool> {
        if self.slots[row] != Slot::Open {
            return Vec::new();
        }
        let mut allowed = vec![false; constraint.classes()];
        for &state in &self.columns[row] {
            for way in self.ways(constraint, row, state) {
                way.classes.iter().for_each(|&class| allowed[class as usize] = true);
            }
        }
        allowed
    }

    fn weight(&self, weights: &Weights, row: usize, class: u32) -> f64 {
        match self.slots[row] {
            Slot::Open => weights[row][class as usize],
            Slot::Fixed(_) => 1.0,
        }
    }

    /// Adds up the products of weights over all fillings of the rows.
    pub fn sum(&self, constraint: &Constraint, weights: &Weights) -> Sums {
        self.behind(
            constraint,
            |row, classes| classes.iter().map(|&c| self.weight(weights, row, c)).sum(),
            |terms| {
                let most = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                most + terms.iter().map(|term| (term - most).exp()).sum::<f64>().ln()
            },
        )
    }

    /// The greatest product of weights instead of their sum.
    pub fn greatest(&self, constraint: &Constraint, weights: &Weights) -> Sums {
        let most = |terms: &[f64]| terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        self.behind(
            constraint,
            |row, classes| classes.iter().map(|&c| self.weight(weights, row, c)).fold(0.0, f64::max),
            most,
        )
    }

    fn behind(
        &self,
        constraint: &Constraint,
        weigh: impl Fn(usize, &[u32]) -> f64,
        join: impl Fn(&[f64]) -> f64,
    ) -> Sums {
        let mut behind: Vec<Vec<f64>> = self.columns.iter().map(|column| vec![0.0; column.len()]).collect();
        let mut terms = Vec::new();
        for row in (0..self.slots.len()).rev() {
            for (place, &state) in self.columns[row].iter().enumerate() {
                terms.clear();
                let ways = self.ways(constraint, row, state);
                terms.extend(ways.map(|way| weigh(row, way.classes).ln() + behind[row + 1][way.to]));
                behind[row][place] = join(&terms);
            }
        }
        Sums { behind }
    }

    /// The probability of each class in each open row, given that the whole is a text: by row and class, as `weights`.
    pub fn marginals(&self, constraint: &Constraint, weights: &Weights, sums: &Sums) -> Weights {
        let mut marginals: Weights = weights.iter().map(|row| vec![0.0; row.len()]).collect();
        let mut here = vec![1.0; self.columns[0].len()];
        for row in 0..self.slots.len() {
            let mut next = vec![0.0; self.columns[row + 1].len()];
            for (place, &state) in self.columns[row].iter().enumerate() {
                for way in self.ways(constraint, row, state) {
                    let rest = (sums.behind[row + 1][way.to] - sums.behind[row][place]).exp();
                    for &class in way.classes {
                        let prob = here[place] * (self.weight(weights, row, class) * rest);
                        next[way.to] += prob;
                        if self.slots[row] == Slot::Open {
                            marginals[row][class as usize] += prob;
                        }
                    }
                }
            }
            here = next;
        }
        marginals
    }

    /// Draws a class for each row, all of them together, with a uniform number each, from the fillings that are whole texts.
    pub fn draw(&self, constraint: &Constraint, weights: &Weights, sums: &Sums, uniforms: &[f64]) -> Vec<u32> {
        self.path(constraint, |row, place, ways| {
            let mut left = uniforms[row];
            let mut last = None;
            for way in ways {
                let rest = (sums.behind[row + 1][way.to] - sums.behind[row][place]).exp();
                for &class in way.classes {
                    last = Some((way.to, class));
                    left -= self.weight(weights, row, class) * rest;
                    if left < 0.0 {
                        return last;
                    }
                }
            }
            last // also where the sum ends a rounding error below the uniform
        })
    }

    /// The filling with the greatest product (`sums` by [`Lattice::greatest`]), lower states and classes first among equals.
    pub fn best(&self, constraint: &Constraint, weights: &Weights, sums: &Sums) -> Vec<u32> {
        self.path(constraint, |row, _, ways| {
            let all = ways.flat_map(|way| way.classes.iter().map(move |&class| (way.to, class)));
            let mut best = (f64::NEG_INFINITY, None);
            for (to, class) in all {
                let value = self.weight(weights, row, class).ln() + sums.behind[row + 1][to];
                if value > best.0 {
                    best = (value, Some((to, class)));
                }
            }
            best.1
        })
    }

    /// Goes through the rows from state to state; shorter than they are only if there is no way through.
    fn path<'a>(
        &'a self,
        constraint: &'a Constraint,
        choose: impl Fn(usize, usize, &mut dyn Iterator<Item = Way<'a>>) -> Option<(usize, u32)>,
    ) -> Vec<u32> {
        let mut place = 0;
        let mut path = Vec::with_capacity(self.slots.len());
        for row in 0..self.slots.len() {
            let Some(&state) = self.columns[row].get(place) else { break };
            let Some((to, class)) = choose(row, place, &mut self.ways(constraint, row, state)) else { break };
            path.push(class);
            place = to;
        }
        path
    }
}
