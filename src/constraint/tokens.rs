//! From bytes to tokens: where each token of a vocabulary leads from each state, with tokens that always lead to the same states as one
//! class.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::State;
use super::bytes::{Bytes, DEAD};

/// Tokens in the order of their bytes, so that what one has in common with the one before is walked once.
struct Vocabulary<'a> {
    /// Bytes, id, and how many first bytes are those of the token before.
    tokens: Vec<(&'a [u8], u32, usize)>,
}

impl<'a> Vocabulary<'a> {
    fn new(texts: &'a [Vec<u8>], ids: impl Iterator<Item = u32>) -> Self {
        let mut tokens: Vec<(&[u8], u32, usize)> =
            ids.map(|id| (&*texts[id as usize], id, 0)).filter(|(bytes, ..)| !bytes.is_empty()).collect();
        tokens.sort_unstable();
        for at in 1..tokens.len() {
            tokens[at].2 = tokens[at].0.iter().zip(tokens[at - 1].0).take_while(|(a, b)| a == b).count();
        }
        Self { tokens }
    }

    /// Tokens that lead on from a state, and where to.
    fn from(&self, bytes: &Bytes, state: u32, mut each: impl FnMut(u32, u32)) {
        // States along the bytes of the last token; fewer than it has bytes where it leads nowhere.
        let mut path = vec![state];
        for &(text, id, common) in &self.tokens {
            if common >= path.len() {
                // The byte that led nowhere is one of this token's, too.
                continue;
            }
            path.truncate(common + 1);
            for &byte in &text[common..] {
                match bytes.next(path[path.len() - 1], byte) {
                    DEAD => break,
                    next => path.push(next),
                }
            }
            if path.len() > text.len() {
                each(id, path[text.len()]);
            }
        }
    }
}

/// Sets of tokens that nothing has told apart so far.
struct Classes {
    of: Vec<u32>,
    sizes: Vec<usize>,
}

impl Classes {
    /// Tells apart tokens that lead to different states, or nowhere (those that are not listed).
    fn refine(&mut self, led: &[(u32, u32)]) {
        let mut parts: HashMap<(u32, u32), (usize, u32)> = HashMap::new();
        for &(id, to) in led {
            parts.entry((self.of[id as usize], to)).or_insert((0, 0)).0 += 1;
        }
        // In the order of ids, so that classes have the same numbers in every run.
        for &(id, to) in led {
            let class = self.of[id as usize];
            let Some(part) = parts.get_mut(&(class, to)) else { continue };
            if part.0 == self.sizes[class as usize] {
                continue;
            }
            if part.1 == 0 {
                part.1 = self.sizes.len() as u32;
                self.sizes.push(part.0);
            }
            self.of[id as usize] = part.1;
        }
        for ((class, _), (size, new)) in parts {
            if new != 0 {
                self.sizes[class as usize] -= size;
            }
        }
    }
}

/// The machine over tokens: the class of each id, how many there are, and the states, the last one behind the end of a text.
pub fn lift(bytes: &Bytes, texts: &[Vec<u8>], eos: u32) -> (Vec<u32>, usize, Vec<State>) {
    let ids = 0..texts.len() as u32;
    let all = Vocabulary::new(texts, ids.clone().filter(|&id| id != eos));
    let mut classes = Classes { of: vec![0; texts.len()], sizes: vec![texts.len()] };
    classes.refine(&[(eos, DEAD)]);
    // The states that whole tokens reach, in the order in which they are found.
    let mut number: BTreeMap<u32, u32> = BTreeMap::from([(0, 0)]);
    let mut found = vec![0];
    let mut at = 0;
    while let Some(&state) = found.get(at) {
        let mut led = Vec::new();
        all.from(bytes, state, |id, to| led.push((id, to)));
        led.sort_unstable();
        for &(_, to) in &led {
            number.entry(to).or_insert_with(|| {
                found.push(to);
                found.len() as u32 - 1
            });
        }
        classes.refine(&led);
        at += 1;
    }
    let mut names = HashMap::new();
    let mut first = Vec::new();
    for id in ids {
        let fresh = names.len() as u32;
        let name = *names.entry(classes.of[id as usize]).or_insert_with(|| {
            first.push(id);
            fresh
        });
        classes.of[id as usize] = name;
    }
    let some = Vocabulary::new(texts, first.iter().copied().filter(|&id| id != eos));
    let end = found.len() as u32;
    let mut states: Vec<State> = Vec::with_capacity(found.len() + 1);
    for &state in &found {
        let mut edges: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        some.from(bytes, state, |id, to| edges.entry(number[&to]).or_default().push(classes.of[id as usize]));
        let accepting = bytes.accepts(state);
        if accepting {
            edges.insert(end, vec![classes.of[eos as usize]]);
        }
        states.push(State { accepting, least: usize::MAX, edges: sorted(edges) });
    }
    let any = (0..first.len() as u32).collect();
    states.push(State { accepting: true, least: 0, edges: vec![(end, any)] });
    measure(&mut states);
    (classes.of, first.len(), states)
}

fn sorted(edges: BTreeMap<u32, Vec<u32>>) -> Vec<(u32, Box<[u32]>)> {
    let sort = |mut classes: Vec<u32>| {
        classes.sort_unstable();
        classes.into_boxed_slice()
    };
    edges.into_iter().map(|(to, classes)| (to, sort(classes))).collect()
}

/// How many tokens each state is from an end.
fn measure(states: &mut [State]) {
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); states.len()];
    for (from, state) in states.iter().enumerate() {
        state.edges.iter().for_each(|&(to, _)| before[to as usize].push(from));
    }
    let mut near: VecDeque<usize> = (0..states.len()).filter(|&state| states[state].accepting).collect();
    near.iter().for_each(|&state| states[state].least = 0);
    while let Some(state) = near.pop_front() {
        for &from in &before[state] {
            if states[from].least == usize::MAX {
                states[from].least = states[state].least + 1;
                near.push_back(from);
            }
        }
    }
}
