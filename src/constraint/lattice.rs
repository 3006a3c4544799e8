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
#[derive(Clone, Copy)]
struct Way {
    /// Place in the next column.
    to: usize,
    /// The classes that lead there.
    set: u32,
}

/// Sums of products over all that may follow, and the weights that they are sums of.
pub struct Sums<'a> {
    weights: &'a Weights,
    /// By column and state, as logarithms.
    behind: Vec<Vec<f64>>,
    /// By row and set: the weights of its classes together; not a number where nobody asked.
    sets: Vec<Vec<f64>>,
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
                Slot::Fixed(class) => before.iter().filter_map(|&s| constraint.next(s, class)).collect(),
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

    fn ways<'a>(&'a self, constraint: &'a Constraint, row: usize, state: u32) -> impl Iterator<Item = Way> + 'a {
        let (slot, after) = (self.slots[row], &self.columns[row + 1]);
        constraint.states()[state as usize].edges.iter().filter_map(move |&(to, set)| {
            let to = after.binary_search(&to).ok()?;
            let leads = match slot {
                Slot::Open => true,
                Slot::Fixed(class) => constraint.sets()[set as usize].binary_search(&class).is_ok(),
            };
            leads.then_some(Way { to, set })
        })
    }

    /// By class: may it stand in an open row? Empty for a fixed one.
    pub fn allowed(&self, constraint: &Constraint, row: usize) -> Vec<bool> {
        if self.slots[row] != Slot::Open {
            return Vec::new();
        }
        let mut seen = vec![false; constraint.sets().len()];
        let mut allowed = vec![false; constraint.classes()];
        for &state in &self.columns[row] {
            for Way { set, .. } in self.ways(constraint, row, state) {
                if !std::mem::replace(&mut seen[set as usize], true) {
                    constraint.sets()[set as usize].iter().for_each(|&class| allowed[class as usize] = true);
                }
            }
        }
        allowed
    }

    /// Adds up the products of weights over all fillings of the rows.
    pub fn sum<'a>(&self, constraint: &Constraint, weights: &'a Weights) -> Sums<'a> {
        self.sums(
            constraint,
            weights,
            |a, b| a + b,
            |terms| {
                let most = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                most + terms.iter().map(|term| (term - most).exp()).sum::<f64>().ln()
            },
        )
    }

    /// Takes the greatest product instead of their sum.
    pub fn greatest<'a>(&self, constraint: &Constraint, weights: &'a Weights) -> Sums<'a> {
        self.sums(constraint, weights, f64::max, |terms| terms.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    fn sums<'a>(
        &self,
        constraint: &Constraint,
        weights: &'a Weights,
        add: impl Fn(f64, f64) -> f64,
        join: impl Fn(&[f64]) -> f64,
    ) -> Sums<'a> {
        let mut behind: Vec<Vec<f64>> = self.columns.iter().map(|column| vec![0.0; column.len()]).collect();
        let mut sets = vec![Vec::new(); self.slots.len()];
        let mut terms = Vec::new();
        for row in (0..self.slots.len()).rev() {
            let known: &mut Vec<f64> = &mut sets[row];
            known.resize(constraint.sets().len(), f64::NAN);
            for (place, &state) in self.columns[row].iter().enumerate() {
                terms.clear();
                for Way { to, set } in self.ways(constraint, row, state) {
                    let set = set as usize;
                    if known[set].is_nan() {
                        let classes = constraint.sets()[set].iter();
                        known[set] = match self.slots[row] {
                            Slot::Open => classes.map(|&class| weights[row][class as usize]).fold(0.0, &add),
                            Slot::Fixed(_) => 1.0,
                        };
                    }
                    terms.push(known[set].ln() + behind[row + 1][to]);
                }
                behind[row][place] = join(&terms);
            }
        }
        Sums { weights, behind, sets }
    }

    /// The probability of each class in the open rows among `wanted`, given that the whole is a text: by row and class, none for
    /// the others. `sums` by [`Lattice::sum`].
    pub fn marginals(&self, constraint: &Constraint, sums: &Sums<'_>, wanted: &[usize]) -> Weights {
        let mut marginals: Weights = vec![Vec::new(); self.slots.len()];
        let mut here = vec![1.0; self.columns[0].len()];
        for row in 0..self.slots.len() {
            let asked = self.slots[row] == Slot::Open && wanted.contains(&row);
            // By set: what all ways with it weigh, but for the classes' own weight.
            let mut ways = vec![0.0; if asked { constraint.sets().len() } else { 0 }];
            let mut next = vec![0.0; self.columns[row + 1].len()];
            for (place, &state) in self.columns[row].iter().enumerate() {
                for Way { to, set } in self.ways(constraint, row, state) {
                    let rest = here[place] * (sums.behind[row + 1][to] - sums.behind[row][place]).exp();
                    next[to] += rest * sums.sets[row][set as usize];
                    if asked {
                        ways[set as usize] += rest;
                    }
                }
            }
            here = next;
            if asked {
                marginals[row].resize(constraint.classes(), 0.0);
                for (set, &rest) in constraint.sets().iter().zip(&ways).filter(|(_, rest)| **rest > 0.0) {
                    for &class in set {
                        marginals[row][class as usize] += rest * sums.weights[row][class as usize];
                    }
                }
            }
        }
        marginals
    }

    /// Draws a class for each row, all of them together, with a uniform number each, from the fillings that are whole texts.
    /// `sums` by [`Lattice::sum`].
    pub fn draw(&self, constraint: &Constraint, sums: &Sums<'_>, uniforms: &[f64]) -> Vec<u32> {
        self.path(constraint, |row, place, ways| {
            let mut left = uniforms[row];
            let mut last = None;
            for Way { to, set } in ways {
                let rest = (sums.behind[row + 1][to] - sums.behind[row][place]).exp();
                let weight = rest * sums.sets[row][set as usize];
                last = self.classes(constraint, row, set).last().map(|&class| (to, class));
                if left >= weight {
                    left -= weight;
                    continue;
                }
                for &class in self.classes(constraint, row, set) {
                    left -= rest * sums.weights[row].get(class as usize).unwrap_or(&1.0);
                    if left < 0.0 {
                        return Some((to, class));
                    }
                }
                break;
            }
            last // also where the sum ends a rounding error below the uniform
        })
    }

    /// The filling with the greatest product, lower states and classes first among equals. `sums` by [`Lattice::greatest`].
    pub fn best(&self, constraint: &Constraint, sums: &Sums<'_>) -> Vec<u32> {
        self.path(constraint, |row, _, ways| {
            let mut best = (f64::NEG_INFINITY, None);
            for way in ways {
                let value = sums.sets[row][way.set as usize].ln() + sums.behind[row + 1][way.to];
                if value > best.0 {
                    best = (value, Some(way));
                }
            }
            let Way { to, set } = best.1?;
            let weight = |class: u32| sums.weights[row].get(class as usize).copied().unwrap_or(1.0);
            let classes = self.classes(constraint, row, set).iter().copied();
            classes.reduce(|a, b| if weight(b) > weight(a) { b } else { a }).map(|class| (to, class))
        })
    }

    /// What of a set may stand in a row.
    fn classes<'a>(&'a self, constraint: &'a Constraint, row: usize, set: u32) -> &'a [u32] {
        match &self.slots[row] {
            Slot::Open => &constraint.sets()[set as usize],
            Slot::Fixed(class) => std::slice::from_ref(class),
        }
    }

    /// Goes through the rows from state to state; shorter than they are only if there is no way through.
    fn path(
        &self,
        constraint: &Constraint,
        choose: impl Fn(usize, usize, &mut dyn Iterator<Item = Way>) -> Option<(usize, u32)>,
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
