//! Which states of a machine have the same futures (Hopcroft 1971): parts of the states are split by where a letter leads, and of two halves
//! only the smaller one is looked at again, so that long chains of states cost no more than others.

use super::bytes::DEAD;

/// States in parts, those of one part side by side.
struct Parts {
    states: Vec<u32>,
    place: Vec<usize>,
    of: Vec<u32>,
    spans: Vec<Span>,
}

/// A part: where it begins and ends, and how many of its first states are marked.
#[derive(Clone, Copy)]
struct Span {
    begin: usize,
    end: usize,
    marked: usize,
}

impl Parts {
    /// All in one.
    fn new(states: usize) -> Self {
        let spans = vec![Span { begin: 0, end: states, marked: 0 }];
        Self { states: (0..states as u32).collect(), place: (0..states).collect(), of: vec![0; states], spans }
    }

    /// Marks a state that is not marked; true for the first one of its part.
    fn mark(&mut self, state: u32) -> bool {
        let span = &mut self.spans[self.of[state as usize] as usize];
        let (to, from) = (span.begin + span.marked, self.place[state as usize]);
        span.marked += 1;
        let first = span.marked == 1;
        self.states.swap(to, from);
        self.place[self.states[from] as usize] = from;
        self.place[state as usize] = to;
        first
    }

    /// Makes the marked states of a part a part of their own, and gives it; `None` where they are none or all of it.
    fn split(&mut self, part: u32) -> Option<u32> {
        let span = &mut self.spans[part as usize];
        let Span { begin, end, marked } = std::mem::replace(span, Span { marked: 0, ..*span });
        if marked == 0 || marked == end - begin {
            return None;
        }
        span.begin += marked;
        let new = self.spans.len() as u32;
        self.spans.push(Span { begin, end: begin + marked, marked: 0 });
        self.states[begin..begin + marked].iter().for_each(|&state| self.of[state as usize] = new);
        Some(new)
    }

    fn size(&self, part: u32) -> usize {
        self.spans[part as usize].end - self.spans[part as usize].begin
    }
}

/// The states that a letter leads from, by letter and state that it leads to.
struct Before {
    heads: Vec<usize>,
    states: Vec<u32>,
}

impl Before {
    /// `next`: `[states][width]`, [`DEAD`] as the state behind the last one.
    fn new(next: &[u32], width: usize) -> Self {
        let count = next.len() / width;
        let slot = |at: usize, to: u32| at % width * (count + 1) + if to == DEAD { count } else { to as usize };
        let mut heads = vec![0; width * (count + 1) + 1];
        for (at, &to) in next.iter().enumerate() {
            heads[slot(at, to) + 1] += 1;
        }
        for at in 1..heads.len() {
            heads[at] += heads[at - 1];
        }
        let (mut free, mut states) = (heads.clone(), vec![0; next.len()]);
        for (at, &to) in next.iter().enumerate() {
            let slot = &mut free[slot(at, to)];
            states[*slot] = (at / width) as u32;
            *slot += 1;
        }
        Self { heads, states }
    }

    fn of(&self, letter: usize, state: u32, count: usize) -> &[u32] {
        let slot = letter * (count + 1) + state as usize;
        &self.states[self.heads[slot]..self.heads[slot + 1]]
    }
}

/// The part of each state, numbered in the order of their first states, and how many there are. `next`: `[states][width]`.
pub fn parts(next: &[u32], width: usize, accepting: &[bool]) -> (Vec<u32>, usize) {
    let count = accepting.len();
    let before = Before::new(next, width);
    let mut parts = Parts::new(count + 1);
    for (state, _) in (0..).zip(accepting).filter(|(_, accepting)| **accepting) {
        parts.mark(state);
    }
    parts.split(0);
    // What to split by: the states that a letter leads from to a part.
    let mut work: Vec<(u32, usize)> =
        (0..parts.spans.len() as u32).flat_map(|p| (0..width).map(move |l| (p, l))).collect();
    let mut waits = vec![true; work.len()];
    while let Some((part, letter)) = work.pop() {
        waits[part as usize * width + letter] = false;
        let span = parts.spans[part as usize];
        let from: Vec<u32> = parts.states[span.begin..span.end]
            .iter()
            .flat_map(|&state| before.of(letter, state, count).iter().copied())
            .collect();
        let mut touched = Vec::new();
        for state in from {
            let part = parts.of[state as usize];
            if parts.mark(state) {
                touched.push(part);
            }
        }
        for old in touched {
            let Some(new) = parts.split(old) else { continue };
            waits.resize(parts.spans.len() * width, false);
            let smaller = if parts.size(new) <= parts.size(old) { new } else { old };
            for letter in 0..width {
                let part = if waits[old as usize * width + letter] { new } else { smaller };
                waits[part as usize * width + letter] = true;
                work.push((part, letter));
            }
        }
    }
    named(&parts.of[..count])
}

/// Parts with new numbers, in the order of their first states.
fn named(of: &[u32]) -> (Vec<u32>, usize) {
    let mut names = vec![DEAD; of.len() + 1];
    let mut count = 0;
    let mut name = |part: u32| {
        let name = &mut names[part as usize];
        if *name == DEAD {
            *name = count;
            count += 1;
        }
        *name
    };
    let named: Vec<u32> = of.iter().map(|&part| name(part)).collect();
    (named, count as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// The same by trying whether parts differ until nothing new is told (Moore 1956).
    fn slowly(next: &[u32], width: usize, accepting: &[bool]) -> (Vec<u32>, usize) {
        let mut parts: Vec<u32> = accepting.iter().map(|&accepting| u32::from(accepting)).collect();
        let mut count = 0;
        loop {
            let led = |to: &u32| if *to == DEAD { DEAD } else { parts[*to as usize] };
            let keys: Vec<Vec<u32>> = (0..parts.len())
                .map(|state| next[state * width..][..width].iter().map(led).chain([parts[state]]).collect())
                .collect();
            let mut known: Vec<&Vec<u32>> = Vec::new();
            let finer = keys.iter().map(|key| match known.iter().position(|known| *known == key) {
                Some(place) => place as u32,
                None => {
                    known.push(key);
                    known.len() as u32 - 1
                }
            });
            parts = finer.collect();
            if known.len() == count {
                return (parts, count);
            }
            count = known.len();
        }
    }

    #[test]
    fn parts_are_those_of_the_slow_way() {
        let mut rng = Rng::new(1);
        let mut fewer = 0;
        for _ in 0..500 {
            let (count, width) = (1 + rng.below(12), 1 + rng.below(3));
            let accepting: Vec<bool> = (0..count).map(|_| rng.below(3) == 0).collect();
            let next: Vec<u32> =
                (0..count * width).map(|_| if rng.below(4) == 0 { DEAD } else { rng.below(count) as u32 }).collect();
            let found = parts(&next, width, &accepting);
            // A state without a future is like the one that is not there; no machine has such states.
            if (0..count).all(|state| reaches(&next, width, &accepting, state)) {
                assert_eq!(found, slowly(&next, width, &accepting), "{next:?} {width} {accepting:?}");
                fewer += usize::from(found.1 < count);
            }
        }
        assert!(fewer > 20, "{fewer}");
    }

    fn reaches(next: &[u32], width: usize, accepting: &[bool], state: usize) -> bool {
        let mut seen = vec![false; accepting.len()];
        let mut found = vec![state];
        while let Some(state) = found.pop() {
            if !std::mem::replace(&mut seen[state], true) {
                found.extend(next[state * width..][..width].iter().filter(|to| **to != DEAD).map(|&to| to as usize));
            }
        }
        seen.iter().zip(accepting).any(|(seen, accepting)| *seen && *accepting)
    }

    #[test]
    fn a_long_chain_takes_no_longer_than_another_machine() {
        let count = 20_000;
        let next: Vec<u32> = (1..count).chain([DEAD]).collect();
        let mut accepting = vec![false; count as usize];
        accepting[count as usize - 1] = true;
        assert_eq!(parts(&next, 1, &accepting).1, count as usize);
    }
}
