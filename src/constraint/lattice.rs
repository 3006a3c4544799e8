//! The rows of a block under a constraint: which classes each may still take, and what becomes of the model's independent
//! distributions once only whole texts count. Given its rows, a machine's state before each of them is a Markov chain, so that sums
//! over all fillings of the block are sums along it: exact, and linear in rows, states and classes. What stands behind the end of a
//! text is nobody's concern: it weighs 1, whatever it is.

use super::scaled::Scaled;
use super::{Constraint, State};

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
    /// One more than rows.
    columns: Vec<Column>,
}

/// States, ascending, and the place of each among them.
#[derive(Clone, Debug)]
struct Column {
    states: Vec<u32>,
    places: Vec<u32>,
}

/// The place of a state that is not there.
const NOWHERE: u32 = u32::MAX;

impl Column {
    fn new(mut states: Vec<u32>, all: usize) -> Self {
        states.sort_unstable();
        states.dedup();
        let mut places = vec![NOWHERE; all];
        (0..).zip(&states).for_each(|(place, &state)| places[state as usize] = place);
        Self { states, places }
    }
}

/// What is known of the open rows: by row, by class, the logarithm of a weight (minus infinity for none), or a probability; nothing for a
/// fixed row.
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
pub struct Sums {
    /// By row and class; nothing for a fixed row.
    weights: Vec<Vec<Scaled>>,
    /// By column and state.
    behind: Vec<Vec<Scaled>>,
    /// By row and set: the weights of its classes together; none where nobody asked.
    sets: Vec<Vec<Option<Scaled>>>,
}

/// The states that any token leads to, each once.
fn led(states: &[State], from: &[u32]) -> Vec<u32> {
    let (mut seen, mut led) = (vec![false; states.len()], Vec::new());
    for &(to, _) in from.iter().flat_map(|&state| &states[state as usize].edges) {
        if !std::mem::replace(&mut seen[to as usize], true) {
            led.push(to);
        }
    }
    led
}

impl Sums {
    fn set(&self, row: usize, set: u32) -> Scaled {
        self.sets[row][set as usize].unwrap_or(Scaled::ZERO)
    }

    /// The part of what may follow a state that goes one way.
    fn share(&self, row: usize, place: usize, way: Way) -> f64 {
        self.set(row, way.set).times(self.rest(row, place, way.to)).number()
    }

    /// The same for a weight of 1.
    fn rest(&self, row: usize, place: usize, to: usize) -> Scaled {
        self.behind[row + 1][to].per(self.behind[row][place])
    }
}

impl Lattice {
    /// `start`: the state before the first row. `left`: how many tokens may come after the last one.
    ///
    /// # Panics
    /// If there is no such state.
    pub fn new(constraint: &Constraint, start: u32, slots: Vec<Slot>, left: usize) -> Self {
        let states = constraint.states();
        let mut columns = vec![Column::new(vec![start], states.len())];
        for &slot in &slots {
            let before = &columns[columns.len() - 1].states;
            let after = match slot {
                Slot::Open => led(states, before),
                Slot::Fixed(class) => before.iter().filter_map(|&s| constraint.next(s, class)).collect(),
            };
            columns.push(Column::new(after, states.len()));
        }
        let mut lattice = Self { slots, columns };
        lattice.end_in(constraint, |state| states[state as usize].least <= left);
        lattice
    }

    /// Leaves only fillings in which the text has ended before the last row is over: nothing is written behind it.
    pub fn must_have_ended(&mut self, constraint: &Constraint) {
        self.end_in(constraint, |state| state == constraint.behind());
    }

    /// Leaves only the states behind the last row that are wanted, and before it those that lead there.
    fn end_in(&mut self, constraint: &Constraint, wanted: impl Fn(u32) -> bool) {
        let (last, all) = (self.slots.len(), constraint.states().len());
        let kept = self.columns[last].states.iter().copied().filter(|&state| wanted(state)).collect();
        self.columns[last] = Column::new(kept, all);
        for row in (0..last).rev() {
            let leads = |&state: &u32| self.ways(constraint, row, state).next().is_some();
            let kept = self.columns[row].states.iter().copied().filter(leads).collect();
            self.columns[row] = Column::new(kept, all);
        }
    }

    /// The rows.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Leaves out the last rows if a text must have ended before them; gives how many rows are left.
    pub fn cut(&mut self, constraint: &Constraint) -> usize {
        let end =
            self.columns.iter().position(|column| column.states == [constraint.behind()]).unwrap_or(self.slots.len());
        self.slots.truncate(end);
        self.columns.truncate(end + 1);
        end
    }

    /// Is there no way through?
    pub fn is_empty(&self) -> bool {
        self.columns[0].states.is_empty()
    }

    fn ways<'a>(&'a self, constraint: &'a Constraint, row: usize, state: u32) -> impl Iterator<Item = Way> + 'a {
        let (slot, after) = (self.slots[row], &self.columns[row + 1].places);
        constraint.states()[state as usize].edges.iter().filter_map(move |&(to, set)| {
            let to = after[to as usize];
            let leads = match slot {
                Slot::Open => true,
                // Behind an end anything may stand, also what the vocabulary does not know.
                Slot::Fixed(_) if state == constraint.behind() => true,
                Slot::Fixed(class) => constraint.sets()[set as usize].binary_search(&class).is_ok(),
            };
            (to != NOWHERE && leads).then_some(Way { to: to as usize, set })
        })
    }

    /// By class: may it stand in an open row, as text or as its end? Empty for a fixed one.
    pub fn allowed(&self, constraint: &Constraint, row: usize) -> Vec<bool> {
        if self.slots[row] != Slot::Open {
            return Vec::new();
        }
        let mut seen = vec![false; constraint.sets().len()];
        let mut allowed = vec![false; constraint.classes()];
        let text = |state: &&u32| **state != constraint.behind();
        for &state in self.columns[row].states.iter().filter(text) {
            for Way { set, .. } in self.ways(constraint, row, state) {
                if !std::mem::replace(&mut seen[set as usize], true) {
                    constraint.sets()[set as usize].iter().for_each(|&class| allowed[class as usize] = true);
                }
            }
        }
        allowed
    }

    /// Adds up the products of weights over all fillings of the rows.
    ///
    /// # Panics
    /// If an open row lacks the weight of a class.
    pub fn sum(&self, constraint: &Constraint, weights: &Weights) -> Sums {
        self.sums(constraint, weights, Scaled::sum)
    }

    /// Takes the greatest product instead of their sum.
    pub fn greatest(&self, constraint: &Constraint, weights: &Weights) -> Sums {
        self.sums(constraint, weights, Scaled::greatest)
    }

    fn sums(&self, constraint: &Constraint, weights: &Weights, join: impl Fn(&[Scaled]) -> Scaled) -> Sums {
        let scaled = |row: &Vec<f64>| row.iter().map(|&weight| Scaled::exp(weight)).collect();
        let weights: Vec<Vec<Scaled>> = weights.iter().map(scaled).collect();
        let mut behind: Vec<Vec<Scaled>> =
            self.columns.iter().map(|column| vec![Scaled::ONE; column.states.len()]).collect();
        let mut sets = vec![vec![None; constraint.sets().len()]; self.slots.len()];
        let (mut terms, mut classes) = (Vec::new(), Vec::new());
        for row in (0..self.slots.len()).rev() {
            let mut weigh = |set: u32| match self.slots[row] {
                Slot::Fixed(_) => Scaled::ONE,
                Slot::Open => {
                    classes.clear();
                    classes.extend(constraint.sets()[set as usize].iter().map(|&class| weights[row][class as usize]));
                    join(&classes)
                }
            };
            for (place, &state) in self.columns[row].states.iter().enumerate() {
                terms.clear();
                for Way { to, set } in self.ways(constraint, row, state) {
                    let weight = match state == constraint.behind() {
                        true => Scaled::ONE,
                        false => *sets[row][set as usize].get_or_insert_with(|| weigh(set)),
                    };
                    terms.push(weight.times(behind[row + 1][to]));
                }
                behind[row][place] = join(&terms);
            }
        }
        Sums { weights, behind, sets }
    }

    /// Does any filling weigh something?
    pub fn is_possible(&self, sums: &Sums) -> bool {
        sums.behind[0].first().is_some_and(|sum| *sum != Scaled::ZERO)
    }

    /// The probability of each class in the open rows among `wanted`, given that the whole is a text: by row and class, none for
    /// the others. What is missing to 1 is the probability that the text has ended before. `sums` by [`Lattice::sum`].
    pub fn marginals(&self, constraint: &Constraint, sums: &Sums, wanted: &[usize]) -> Weights {
        let mut marginals: Weights = vec![Vec::new(); self.slots.len()];
        let mut here = vec![1.0; self.columns[0].states.len()];
        for (row, told) in marginals.iter_mut().enumerate() {
            let asked = self.slots[row] == Slot::Open && wanted.contains(&row);
            // By set: what all ways with it weigh, but for the classes' own weight.
            let mut ways = vec![Scaled::ZERO; if asked { constraint.sets().len() } else { 0 }];
            let mut next = vec![0.0; self.columns[row + 1].states.len()];
            for (place, &state) in self.columns[row].states.iter().enumerate().filter(|&(place, _)| here[place] > 0.0) {
                let is_text = state != constraint.behind();
                for Way { to, set } in self.ways(constraint, row, state) {
                    next[to] += here[place] * if is_text { sums.share(row, place, Way { to, set }) } else { 1.0 };
                    if asked && is_text {
                        let rest = sums.rest(row, place, to).times(Scaled::of(here[place]));
                        ways[set as usize] = ways[set as usize].plus(rest);
                    }
                }
            }
            here = next;
            if asked {
                told.resize(constraint.classes(), 0.0);
                for (set, &rest) in constraint.sets().iter().zip(&ways).filter(|(_, rest)| **rest != Scaled::ZERO) {
                    for &class in set {
                        told[class as usize] += rest.times(sums.weights[row][class as usize]).number();
                    }
                }
            }
        }
        marginals
    }

    /// Draws a class for each row, all of them together, with a uniform number each, from the fillings that are whole texts; none for
    /// rows behind the end. `None` if there is no way through. `sums` by [`Lattice::sum`].
    pub fn draw(&self, constraint: &Constraint, sums: &Sums, uniforms: &[f64]) -> Option<Vec<Option<u32>>> {
        self.path(constraint, |row, place, ways| {
            let mut left = uniforms[row];
            let mut last = None;
            for way in ways {
                let share = sums.share(row, place, way);
                if share > 0.0 {
                    last = Some(way);
                    if left < share {
                        break;
                    }
                    left -= share;
                }
            }
            // Also where the sum ends a rounding error below the uniform.
            let Way { to, set } = last?;
            let rest = sums.rest(row, place, to);
            let mut drawn = None;
            for &class in self.classes(constraint, row, set) {
                let share = sums.weights[row].get(class as usize).map_or(Scaled::ONE, |&w| w).times(rest).number();
                drawn = if share > 0.0 || drawn.is_none() { Some((to, class)) } else { drawn };
                left -= share;
                if left < 0.0 {
                    break;
                }
            }
            drawn
        })
    }

    /// The filling with the greatest product, lower states and classes first among equals; none for rows behind the end. `None` if
    /// there is no way through. `sums` by [`Lattice::greatest`].
    pub fn best(&self, constraint: &Constraint, sums: &Sums) -> Option<Vec<Option<u32>>> {
        self.path(constraint, |row, _, ways| {
            let value = |way: &Way| sums.set(row, way.set).times(sums.behind[row + 1][way.to]);
            let best = ways.reduce(|a, b| if value(&b).compare(&value(&a)).is_gt() { b } else { a });
            let Way { to, set } = best?;
            let weight = |class: u32| sums.weights[row].get(class as usize).map_or(Scaled::ONE, |&weight| weight);
            let classes = self.classes(constraint, row, set).iter().copied();
            let better = |a: u32, b: u32| if weight(b).compare(&weight(a)).is_gt() { b } else { a };
            classes.reduce(better).map(|class| (to, class))
        })
    }

    /// What of a set may stand in a row.
    fn classes<'a>(&'a self, constraint: &'a Constraint, row: usize, set: u32) -> &'a [u32] {
        match &self.slots[row] {
            Slot::Open => &constraint.sets()[set as usize],
            Slot::Fixed(class) => std::slice::from_ref(class),
        }
    }

    /// Goes through the rows from state to state, up to the end of the text.
    fn path(
        &self,
        constraint: &Constraint,
        choose: impl Fn(usize, usize, &mut dyn Iterator<Item = Way>) -> Option<(usize, u32)>,
    ) -> Option<Vec<Option<u32>>> {
        let mut place = 0;
        let mut path = Vec::with_capacity(self.slots.len());
        for row in 0..self.slots.len() {
            let state = *self.columns[row].states.get(place)?;
            if state == constraint.behind() {
                break;
            }
            let (to, class) = choose(row, place, &mut self.ways(constraint, row, state))?;
            path.push(Some(class));
            place = to;
        }
        path.resize(self.slots.len(), None);
        Some(path)
    }
}
