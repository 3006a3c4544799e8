use super::*;
use crate::arch::*;
use crate::format::Type;
use crate::pass::{Ask, Cache, Filter};
use std::borrow::Cow;
use std::time::Instant;

#[test]
#[ignore]
fn speed() {
    let types: Vec<Type> = std::env::var("TY")
        .unwrap_or("q8_0".into())
        .split(',')
        .map(|n| Type::ALL.into_iter().find(|t| t.name() == n).unwrap())
        .collect();
    let arch = Arch {
        vocab: 32000,
        mask: 31999,
        special: SpecialIds::default(),
        hidden: 768,
        layers: 12,
        heads: 12,
        length: 2048,
        objective: Objective::Masked,
        block: 4,
        sizes: vec![],
        shape: Shape::Llama(Llama {
            kv_heads: 12,
            head_dim: 64,
            feed_forward: 2048,
            norm_eps: 1e-5,
            rotary_base: 1e4,
            rotary_dim: 64,
            qk_norm: false,
            qkv_bias: false,
            tied: false,
        }),
    };
    for ty in types {
        let mut isas = Isa::available();
        isas.remove(0);
        if let Ok(n) = std::env::var("ISA") {
            isas.retain(|i| i.name() == n);
        }
        for isa in isas {
            let take = |name: &str, shape: &[usize]| {
                let n: usize = shape.iter().product();
                if shape.len() == 1 {
                    return Ok(Stored::of_f32(shape, &vec![1.0; n]));
                }
                let mut bytes = vec![0u8; ty.bytes(n).unwrap()];
                let mut x = name.len() as u32 * 77 + 1;
                for b in bytes.chunks_mut(ty.block_bytes()) {
                    for v in b.iter_mut() {
                        x = x.wrapping_mul(1664525).wrapping_add(1013904223);
                        *v = (x >> 24) as u8;
                    }
                    let d = half::f16::from_f32(0.002).to_le_bytes();
                    match ty {
                        Type::F32 => b.copy_from_slice(&(x as f32 * 1e-11).to_le_bytes()),
                        Type::F16 => b.copy_from_slice(&half::f16::from_f32(x as f32 * 1e-11).to_le_bytes()),
                        Type::Bf16 => b.copy_from_slice(&half::bf16::from_f32(x as f32 * 1e-11).to_le_bytes()),
                        Type::Q6K => b[208..].copy_from_slice(&half::f16::from_f32(1e-5).to_le_bytes()),
                        Type::Q4_1 | Type::Q4K => {
                            b[..2].copy_from_slice(&d);
                            b[2..4].copy_from_slice(&d);
                        }
                        _ => b[..2].copy_from_slice(&d),
                    }
                }
                Ok(Stored { ty, shape: shape.to_vec(), bytes: Cow::Owned(bytes) })
            };
            let engine = Engine::new(&arch, take, Options { threads: 2, exact: false, isa: Some(isa) }).unwrap();
            let depth: usize = std::env::var("DEPTH").map_or(256, |d| d.parse().unwrap());
            for rows in [1, 2, 4, 8, 16, 32] {
                let mut cache = engine.cache(1);
                let ids: Vec<u32> = (0..depth as u32).map(|i| i * 31 % 30000).collect();
                let open = vec![31999; rows];
                let none = Ask { rows: vec![], uniforms: vec![], filter: Filter::GREEDY, alternatives: 0 };
                let ask = Ask {
                    rows: (0..rows).collect(),
                    uniforms: vec![0.5; rows],
                    filter: Filter::GREEDY,
                    alternatives: 0,
                };
                if depth > 0 {
                    engine.pass(&mut [Lane { cache: &mut cache, store: &ids, open: &[], ask: &none }]).unwrap();
                }
                for p in &super::pass::PHASES {
                    p.store(0, std::sync::atomic::Ordering::Relaxed);
                }
                let mut times = vec![];
                for _ in 0..60 {
                    let t = Instant::now();
                    engine.pass(&mut [Lane { cache: &mut cache, store: &[], open: &open, ask: &ask }]).unwrap();
                    times.push(t.elapsed().as_secs_f64());
                }
                let names = ["embed", "norm+q", "qkv", "append", "attend", "requant", "out", "up", "down", "head"];
                for (n, p) in names.iter().zip(&super::pass::PHASES) {
                    eprint!("{n} {:.3} ", p.swap(0, std::sync::atomic::Ordering::Relaxed) as f64 / 60e6);
                }
                eprintln!();
                times.sort_by(f64::total_cmp);
                let ms = times[times.len() / 2] * 1e3;
                let params = 12.0 * (4.0 * 768.0 * 768.0 + 3.0 * 768.0 * 2048.0) + 768.0 * 32000.0;
                let bytes = params * ty.block_bytes() as f64 / ty.block() as f64 + (depth * 12 * 2 * 768 * 2) as f64;
                let ops = 2.0 * params * rows as f64 + 4.0 * (rows * (depth + rows) * 768 * 12) as f64;
                let (bw, peak) = (67e9, if isa.name() == "avx2" { 700e9 } else { 2080e9 });
                let ideal = (bytes / bw).max(ops / peak) * 1e3;
                eprintln!(
                    "{} {} rows {rows} depth {depth}: {ms:.3} ms (min {:.3}) share {:.2}  {:.1} GB/s {:.0} GOP/s",
                    isa.name(),
                    ty.name(),
                    times[0] * 1e3,
                    ideal / ms,
                    bytes / ms / 1e6,
                    ops / ms / 1e6
                );
                drop(cache.end());
            }
        }
    }
}
