//! Rules that choose rows without looking at proposals: only these rows are asked for.

/// One of the masked rows, uniformly.
pub fn first_hitting(masked: &[usize], uniform: f64) -> usize {
    masked[((uniform * masked.len() as f64) as usize).min(masked.len() - 1)]
}

/// The rows that leave the mask in the next step that frees any: at step i of T a mask stays with probability
/// s/t = (T - i - 1) / (T - i). Steps that free nothing are passed over without a pass, since the model would see the same ids
/// again. `coin` gives one uniform per masked row and step.
pub fn ancestral(masked: &[usize], steps: usize, step: &mut usize, mut coin: impl FnMut() -> f64) -> Vec<usize> {
    while *step < steps {
        let left = (steps - *step) as f64;
        *step += 1;
        let freed = leave(masked, (left - 1.0) / left, &mut coin);
        if !freed.is_empty() {
            return freed;
        }
    }
    masked.to_vec()
}

/// The rows that leave the mask where each stays with this probability. `coin` gives one uniform in [0, 1) per row.
pub fn leave(masked: &[usize], stay: f64, mut coin: impl FnMut() -> f64) -> Vec<usize> {
    masked.iter().copied().filter(|_| coin() >= stay).collect()
}

/// `count` of the masked rows, every subset as likely, ascending. `below` gives a uniform number below its argument.
pub fn random(masked: &[usize], count: usize, mut below: impl FnMut(usize) -> usize) -> Vec<usize> {
    let mut rows = masked.to_vec();
    let count = count.min(rows.len());
    for i in 0..count {
        let other = i + below(rows.len() - i);
        rows.swap(i, other);
    }
    rows.truncate(count);
    rows.sort_unstable();
    rows
}

/// The first `count` masked rows.
pub fn left_to_right(masked: &[usize], count: usize) -> Vec<usize> {
    masked[..count.min(masked.len())].to_vec()
}
