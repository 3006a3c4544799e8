//! What the tests of the fused operations share: random numbers, comparison, numeric gradients, pools of threads.

/// `n` numbers in [-1, 1), the same for the same seed.
pub fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// To the precision that the references are computed in.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// Asserts that `got` is within `tolerance` of `want`, relative to the larger of 1 and |want|.
#[track_caller]
pub fn close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "lengths");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let gap = (f64::from(*got) - want).abs() / want.abs().max(1.0);
        assert!(gap <= tolerance, "element {i}: {got}, expected {want}");
    }
}

/// The gradient of `f` at `x` by central differences.
pub fn numeric_gradient(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-5;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let here = x[i];
            x[i] = here + step;
            let above = f(&x);
            x[i] = here - step;
            let below = f(&x);
            x[i] = here;
            (above - below) / (2.0 * step)
        })
        .collect()
}

/// Sum of products in f64: the scalar whose gradient the backward passes are checked against.
pub fn inner(y: &[f64], grad: &[f32]) -> f64 {
    assert_eq!(y.len(), grad.len());
    y.iter().zip(grad).map(|(y, g)| y * f64::from(*g)).sum()
}

/// Asserts that `run` gives the same bits with 1, 2 and 3 threads.
#[track_caller]
pub fn same_in_pools(run: impl Fn() -> Vec<f32> + Sync + Send) {
    let bits = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&run).iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    let one = bits(1);
    assert!(one == bits(2) && one == bits(3), "the number of threads changed the result");
}
