//! From bytes to tokens: where each token of a vocabulary leads from each state, with tokens that always lead to the same states as one
//! class.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::State;
use super::bytes::{Bytes, DEAD};
use crate::error::{Error, Result};

/// What a machine over tokens may come to; beyond, each pass would take long.
const MOST_WAYS: usize = 1 << 18;
const MOST_CLASSES: usize = 1 << 12;
/// Of all sets together.
const MOST_IN_SETS: usize = 1 << 20;
/// Tokens that are looked at while it is made, at most: a few seconds.
const MOST_LOOKS: usize = 1 << 29;

fn too_large(what: &str, most: usize) -> Error {
    Error::value("regex", format!("one that needs at most {most} {what} with this vocabulary"), "one that needs more")
}

/// Tokens in the order of their bytes, so that what one has in common with the one before is walked once.
struct Vocabulary<'a> {
    /// Bytes, id, and how many first bytes are those of the token before.
    tokens: Vec<(&'a [u8], u32, usize)>,
    /// By first byte: where its tokens begin; at last where all end.
    begins: Vec<usize>,
}

impl<'a> Vocabulary<'a> {
    fn new(texts: &'a [Vec<u8>], ids: impl Iterator<Item = u32>) -> Self {
        let mut tokens: Vec<(&[u8], u32, usize)> =
            ids.map(|id| (&*texts[id as usize], id, 0)).filter(|(bytes, ..)| !bytes.is_empty()).collect();
        tokens.sort_unstable();
        for at in 1..tokens.len() {
            tokens[at].2 = tokens[at].0.iter().zip(tokens[at - 1].0).take_while(|(a, b)| a == b).count();
        }
        let begins = (0..=256).map(|byte| tokens.partition_point(|(text, ..)| usize::from(text[0]) < byte)).collect();
        Self { tokens, begins }
    }

    /// Tokens that lead on from a state, and where to. Gives how many were looked at: inside a character few bytes can come first.
    fn from(&self, bytes: &Bytes, state: u32, mut each: impl FnMut(u32, u32)) -> usize {
        let leads = |byte: &u8| bytes.next(state, *byte) != DEAD;
        let parts =
            (0..=255u8).filter(leads).map(|byte| self.begins[usize::from(byte)]..self.begins[usize::from(byte) + 1]);
        let mut looks = 0;
        for part in parts {
            looks += part.len();
            walk(bytes, state, &self.tokens[part], &mut each);
        }
        looks
    }
}

/// The same for some tokens beside each other, the first of which has nothing in common with the one before.
fn walk(bytes: &Bytes, state: u32, tokens: &[(&[u8], u32, usize)], each: &mut impl FnMut(u32, u32)) {
    // States along the bytes of the last token; fewer than it has bytes where it leads nowhere.
    let mut path = vec![state];
    for &(text, id, common) in tokens {
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

/// Sets of tokens that nothing has told apart so far.
struct Classes {
    of: Vec<u32>,
    sizes: Vec<usize>,
    /// By class: the first of its parts; of use where `round` is that of now.
    first: Vec<Part>,
    round: u32,
}

/// The tokens of a class that lead to one state.
#[derive(Clone, Copy, Default)]
struct Part {
    round: u32,
    to: u32,
    size: usize,
    /// The class that they become; 0: the one they are.
    new: u32,
}

impl Classes {
    /// All tokens as one.
    fn new(tokens: usize) -> Self {
        Self { of: vec![0; tokens], sizes: vec![tokens], first: vec![Part::default()], round: 0 }
    }

    /// Tells apart tokens that lead to different states, or nowhere (those that are not listed).
    fn refine(&mut self, led: &[(u32, u32)]) {
        self.round += 1;
        // Most classes lead to one state; further parts of a class are kept here.
        let mut more: HashMap<(u32, u32), Part> = HashMap::new();
        for &(id, to) in led {
            let class = self.of[id as usize];
            let first = &mut self.first[class as usize];
            if first.round != self.round {
                *first = Part { round: self.round, to, size: 1, new: 0 };
            } else if first.to == to {
                first.size += 1;
            } else {
                more.entry((class, to)).or_default().size += 1;
            }
        }
        let olds = self.sizes.clone();
        for &(id, to) in led {
            let class = self.of[id as usize];
            let first = &mut self.first[class as usize];
            let part = match first.to == to {
                true => Some(first),
                false => more.get_mut(&(class, to)),
            };
            let Some(part) = part.filter(|part| part.size < olds[class as usize]) else { continue };
            if part.new == 0 {
                part.new = self.sizes.len() as u32;
                self.sizes[class as usize] -= part.size;
                self.sizes.push(part.size);
            }
            self.of[id as usize] = part.new;
        }
        self.first.resize(self.sizes.len(), Part::default());
    }
}

/// The machine over tokens.
pub struct Lifted {
    /// By id.
    pub class_of: Vec<u32>,
    pub classes: usize,
    pub sets: Vec<Box<[u32]>>,
    /// The last one is behind the end of a text.
    pub states: Vec<State>,
}

/// Sets of classes, each once.
#[derive(Default)]
struct Sets {
    all: Vec<Box<[u32]>>,
    numbers: HashMap<Box<[u32]>, u32>,
    /// Of all of them together.
    size: usize,
}

impl Sets {
    fn number(&mut self, mut classes: Vec<u32>) -> u32 {
        classes.sort_unstable();
        let classes = classes.into_boxed_slice();
        *self.numbers.entry(classes).or_insert_with_key(|classes| {
            self.size += classes.len();
            self.all.push(classes.clone());
            self.all.len() as u32 - 1
        })
    }
}

/// The states that whole tokens reach, in the order in which they are found, with their numbers; and the classes that they tell apart.
fn explore(
    bytes: &Bytes,
    all: &Vocabulary<'_>,
    eos: u32,
    count: usize,
) -> Result<(Vec<u32>, BTreeMap<u32, u32>, Classes)> {
    let mut classes = Classes::new(count);
    classes.refine(&[(eos, DEAD)]);
    let mut number: BTreeMap<u32, u32> = BTreeMap::from([(0, 0)]);
    let mut found = vec![0];
    let (mut at, mut looks) = (0, 0);
    while let Some(&state) = found.get(at) {
        let mut led = Vec::new();
        looks += all.from(bytes, state, |id, to| led.push((id, to)));
        for &(_, to) in &led {
            number.entry(to).or_insert_with(|| {
                found.push(to);
                found.len() as u32 - 1
            });
        }
        classes.refine(&led);
        at += 1;
        if looks > MOST_LOOKS {
            return Err(too_large("looks at tokens", MOST_LOOKS));
        }
        if classes.sizes.len() > 2 * MOST_CLASSES {
            return Err(too_large("classes of tokens", MOST_CLASSES));
        }
    }
    Ok((found, number, classes))
}

/// Makes it.
///
/// # Errors
/// When it would be too large.
pub fn lift(bytes: &Bytes, texts: &[Vec<u8>], eos: u32) -> Result<Lifted> {
    let ids = 0..texts.len() as u32;
    let all = Vocabulary::new(texts, ids.clone().filter(|&id| id != eos));
    let (found, number, mut classes) = explore(bytes, &all, eos, texts.len())?;
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
    if first.len() > MOST_CLASSES {
        return Err(too_large("classes of tokens", MOST_CLASSES));
    }
    let some = Vocabulary::new(texts, first.iter().copied().filter(|&id| id != eos));
    let end = found.len() as u32;
    let (mut sets, mut ways) = (Sets::default(), 0);
    let mut states: Vec<State> = Vec::with_capacity(found.len() + 1);
    for &state in &found {
        let mut edges: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        some.from(bytes, state, |id, to| edges.entry(number[&to]).or_default().push(classes.of[id as usize]));
        let accepting = bytes.accepts(state);
        if accepting {
            edges.insert(end, vec![classes.of[eos as usize]]);
        }
        let edges: Vec<(u32, u32)> = edges.into_iter().map(|(to, classes)| (to, sets.number(classes))).collect();
        ways += edges.len();
        states.push(State { accepting, least: usize::MAX, edges });
        if ways > MOST_WAYS {
            return Err(too_large("ways from state to state", MOST_WAYS));
        }
        if sets.size > MOST_IN_SETS {
            return Err(too_large("classes in sets", MOST_IN_SETS));
        }
    }
    let any = sets.number((0..first.len() as u32).collect());
    states.push(State { accepting: true, least: 0, edges: vec![(end, any)] });
    measure(&mut states);
    Ok(Lifted { class_of: classes.of, classes: first.len(), sets: sets.all, states })
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
