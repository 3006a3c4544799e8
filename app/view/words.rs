//! From a page to what is read: its slots as cells, its figures and its last change as a line.

use bd3::event::{Edit, EditKind, Why};

use super::cells::{Cell, Ink, Speller, fit, width};
use super::page::{Change, Page, Slot};
use super::plain::lossy;
use super::{Inks, Spell};

/// Adds the cells of slots. Where nothing can be struck through, what was taken away is left out.
pub fn lay(slots: &[Slot], spell: Spell, inks: Inks, speller: &mut Speller, cells: &mut Vec<Cell>) {
    for &slot in slots {
        match slot {
            Slot::Mask => speller.push_mask(Ink::Mask, cells),
            Slot::Inserted => speller.push_mask(Ink::Inserted, cells),
            Slot::Given(id) => speller.push(&spell(id), Ink::Given, cells),
            Slot::Settled(id) => speller.push(&spell(id), Ink::Settled, cells),
            Slot::Drawn { id, prob } => speller.push(&spell(id), Ink::Drawn(prob), cells),
            Slot::Struck(_) | Slot::Fading(_) if inks == Inks::None => {}
            Slot::Struck(id) => aside(&spell(id), Ink::Struck, cells),
            Slot::Fading(id) => aside(&spell(id), Ink::Fading, cells),
        }
    }
}

/// A token on its own: it takes no part in the characters around it, and breaks no row.
fn aside(bytes: &[u8], ink: Ink, cells: &mut Vec<Cell>) {
    let from = cells.len();
    let mut speller = Speller::default();
    speller.push(bytes, ink, cells);
    speller.give_up(cells);
    for cell in cells[from..].iter_mut().filter(|cell| cell.ch == '\n') {
        (cell.ch, cell.width) = ('⏎', 1);
    }
}

/// What stands between the parts of a line.
const BETWEEN: &str = " · ";

/// As many whole parts of a line, from its first on, as fit into so many columns: a number that is cut is another number.
pub fn fit_parts(line: &str, columns: usize) -> &str {
    let ends = line.match_indices(BETWEEN).map(|(at, _)| at).chain([line.len()]);
    ends.map(|end| &line[..end]).take_while(|part| width(part) <= columns).last().unwrap_or_default()
}

/// A reason in so many columns: where there is no room for its numbers, without them.
pub fn fit_reason(reason: &str, columns: usize) -> String {
    let words = reason.rsplit_once(" (").map_or(reason, |(words, _)| words);
    fit(if width(reason) <= columns { reason } else { words }, columns)
}

/// Block, pass, tokens per pass and per second.
pub fn figures(page: &Page, seconds: f64) -> String {
    let (passes, drawn) = (page.passes(), page.drawn());
    let per_pass = drawn as f64 / passes.max(1) as f64;
    let rate = drawn as f64 / seconds.max(1e-9);
    format!("block {} · pass {passes} · {per_pass:.2} tokens/pass · {rate:.0} tokens/s", page.blocks())
}

/// The last change and its reason: `revised "cat" -> "dog": better (.12 -> .87)`.
pub fn reason(page: &Page, spell: Spell) -> Option<String> {
    Some(match page.last()? {
        Change::Edited(edit) => edited(edit, spell),
        Change::Retracted { count, prob, why } => {
            let tokens = if *count == 1 { "token" } else { "tokens" };
            format!("took back {count} {tokens}: {} ({})", word(*why), short(*prob))
        }
    })
}

fn edited(edit: &Edit, spell: Spell) -> String {
    let token = |id| format!("{:?}", lossy(spell(id)));
    let (old, new, why) = (token(edit.old), token(edit.new), word(edit.why));
    match edit.kind {
        EditKind::Fill => format!("filled {new}: {why} ({})", short(edit.prob)),
        EditKind::Revise => {
            format!("revised {old} -> {new}: {why} ({} -> {})", short(edit.old_prob), short(edit.prob))
        }
        EditKind::Remask => format!("re-masked {old}: {why} ({})", short(edit.old_prob)),
        EditKind::Insert => format!("inserted a mask: {why}"),
        EditKind::Delete => format!("deleted {old}: {why} ({})", short(edit.old_prob)),
    }
}

fn word(why: Why) -> &'static str {
    match why {
        Why::Rule => "rule",
        Why::Best => "best",
        Why::Hurry => "hurry",
        Why::Schedule => "schedule",
        Why::Unlikely => "unlikely",
        Why::Better => "better",
        Why::Asked => "asked",
        Why::Loop => "loop",
        Why::Cleanup => "cleanup",
    }
}

/// A probability in two digits, without the zero before the point.
fn short(prob: f32) -> String {
    let digits = format!("{prob:.2}");
    digits.strip_prefix('0').map_or(digits.clone(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spell(id: u32) -> Vec<u8> {
        match id {
            1 => b" cat\n".to_vec(),
            2 => vec![0xc3],
            _ => format!("w{id}").into_bytes(),
        }
    }

    fn laid(slots: &[Slot], inks: Inks) -> String {
        let (mut speller, mut cells) = (Speller::default(), Vec::new());
        lay(slots, &spell, inks, &mut speller, &mut cells);
        speller.give_up(&mut cells);
        cells.iter().map(|cell| cell.ch).collect()
    }

    #[test]
    fn a_struck_token_stands_apart_and_breaks_nothing() {
        let slots = [Slot::Struck(1), Slot::Drawn { id: 3, prob: 1.0 }, Slot::Fading(2), Slot::Inserted, Slot::Mask];
        assert_eq!(laid(&slots, Inks::Colours), " cat⏎w3░⊞▢");
        assert_eq!(laid(&slots, Inks::None), "w3⊞▢");
    }

    #[test]
    fn a_narrow_line_loses_whole_parts() {
        let line = "block 6 · pass 23 · 1.45 tokens/pass · 572 tokens/s";
        let fitted = [51, 50, 36, 20, 17, 16, 7, 6].map(|columns| fit_parts(line, columns));
        let [all, three, two, one] = [line, &line[..line.len() - 16], "block 6 · pass 23", "block 6"];
        assert_eq!(fitted, [all, three, three, two, two, one, one, ""]);
        assert_eq!(fit_reason("re-masked \"w5\": better (.12)", 28), "re-masked \"w5\": better (.12)");
        assert_eq!(fit_reason("re-masked \"w5\": better (.12)", 27), "re-masked \"w5\": better");
    }

    #[test]
    fn a_change_is_told_with_its_reason() {
        let edit = |kind| Edit { kind, old: 5, old_prob: 0.119, why: Why::Better, ..Edit::fill(4, 9, 6, 0.874) };
        let told = |kind| edited(&edit(kind), &spell);
        assert_eq!(told(EditKind::Revise), "revised \"w5\" -> \"w6\": better (.12 -> .87)");
        assert_eq!(told(EditKind::Remask), "re-masked \"w5\": better (.12)");
        assert_eq!(told(EditKind::Delete), "deleted \"w5\": better (.12)");
        assert_eq!(told(EditKind::Insert), "inserted a mask: better");
        assert_eq!((short(0.0), short(0.999)), (".00".into(), "1.00".into()));
        assert_eq!(edited(&Edit { old: 1, ..edit(EditKind::Delete) }, &spell), "deleted \" cat\\n\": better (.12)");
    }
}
