//! Rows of a table by id, and the gradient of the table.

use super::pieces;

/// `table [vocab, d]`, ids: rows `[ids, d]`.
///
/// # Panics
/// If an id is not below the number of rows of the table.
pub fn embed_forward(table: &[f32], ids: &[u32], d: usize) -> Vec<f32> {
    let pieces = pieces::cut(ids.len(), 1);
    pieces::build(&pieces, d, pieces::no_sides(&pieces), |piece, out, ()| {
        for (id, out) in ids[piece.rows.clone()].iter().zip(out.chunks_exact_mut(d)) {
            out.copy_from_slice(&table[*id as usize * d..][..d]);
        }
    })
}

/// From `grad [ids, d]` the gradient `[vocab, d]` of the table: rows with one id are added in the order of their position.
pub fn embed_backward(grad: &[f32], ids: &[u32], (vocab, d): (usize, usize)) -> Vec<f32> {
    assert_eq!(grad.len(), ids.len() * d, "one row of gradients for each id");
    let (starts, positions) = positions_by_id(ids, vocab);
    let pieces = pieces::cut(vocab, 1);
    pieces::build(&pieces, d, pieces::no_sides(&pieces), |piece, out, ()| {
        for (id, out) in piece.rows.clone().zip(out.chunks_exact_mut(d)) {
            for position in &positions[starts[id]..starts[id + 1]] {
                let row = &grad[position * d..][..d];
                out.iter_mut().zip(row).for_each(|(out, grad)| *out += grad);
            }
        }
    })
}

/// A stable counting sort: the positions of id i are `positions[starts[i]..starts[i + 1]]`, ascending.
fn positions_by_id(ids: &[u32], vocab: usize) -> (Vec<usize>, Vec<usize>) {
    let mut starts = vec![0; vocab + 1];
    for id in ids {
        starts[*id as usize + 1] += 1;
    }
    for id in 0..vocab {
        starts[id + 1] += starts[id];
    }
    let mut next = starts.clone();
    let mut positions = vec![0; ids.len()];
    for (position, id) in ids.iter().enumerate() {
        positions[next[*id as usize]] = position;
        next[*id as usize] += 1;
    }
    (starts, positions)
}

#[cfg(test)]
mod tests {
    use super::super::check::{close, random, same_in_pools, wide};
    use super::*;

    #[test]
    fn gather_and_scatter() {
        let (table, grad) = (random(200 * 3, 1), random(6 * 3, 2));
        let ids = [7, 0, 199, 7, 7, 64];
        let rows = embed_forward(&table, &ids, 3);
        let mut want = vec![0.0; 600];
        for (position, id) in ids.iter().enumerate() {
            let row = *id as usize * 3;
            assert_eq!(rows[position * 3..][..3], table[row..][..3]);
            (0..3).for_each(|i| want[row + i] += wide(&grad)[position * 3 + i]);
        }
        close(&embed_backward(&grad, &ids, (200, 3)), &want, 1e-6);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let ids: Vec<u32> = (0..3000).map(|i| i * i % 97).collect();
        let grad = random(3000 * 5, 1);
        same_in_pools(|| embed_backward(&grad, &ids, (97, 5)));
    }
}
