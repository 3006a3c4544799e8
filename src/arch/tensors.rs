//! Which tensors each shape has: names and shapes, nothing else.

use super::{Arch, Dit, FREQUENCIES, Llama, MLP_RATIO, Shape};

impl Arch {
    /// All tensors of the network with their names and shapes (outermost axis first). Names are those of the published
    /// checkpoints: of the official BD3-LM code, without its prefix and in the order of its parameter list, or Hugging Face's of
    /// Llama and Qwen.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        match &self.shape {
            Shape::Dit(dit) => self.dit_tensors(dit),
            Shape::Llama(llama) => self.llama_tensors(llama),
        }
    }

    fn dit_tensors(&self, dit: &Dit) -> Vec<(String, Vec<usize>)> {
        let (d, c) = (self.hidden, dit.cond);
        let mut all: Vec<(String, Vec<usize>)> = vec![("vocab_embed.embedding".into(), vec![self.vocab, d])];
        if self.modulated() {
            all.push(("sigma_map.mlp.0.weight".into(), vec![c, FREQUENCIES]));
            all.push(("sigma_map.mlp.0.bias".into(), vec![c]));
            all.push(("sigma_map.mlp.2.weight".into(), vec![c, c]));
            all.push(("sigma_map.mlp.2.bias".into(), vec![c]));
        }
        for layer in 0..self.layers {
            let mut add = |name: &str, shape: Vec<usize>| all.push((format!("blocks.{layer}.{name}"), shape));
            add("norm1.weight", vec![d]);
            add("attn_qkv.weight", vec![3 * d, d]);
            add("attn_out.weight", vec![d, d]);
            add("norm2.weight", vec![d]);
            add("mlp.0.weight", vec![MLP_RATIO * d, d]);
            add("mlp.0.bias", vec![MLP_RATIO * d]);
            add("mlp.2.weight", vec![d, MLP_RATIO * d]);
            add("mlp.2.bias", vec![d]);
            if self.modulated() {
                add("adaLN_modulation.weight", vec![6 * d, c]);
                add("adaLN_modulation.bias", vec![6 * d]);
            }
        }
        all.push(("output_layer.norm_final.weight".into(), vec![d]));
        all.push(("output_layer.linear.weight".into(), vec![self.vocab, d]));
        all.push(("output_layer.linear.bias".into(), vec![self.vocab]));
        if self.modulated() {
            all.push(("output_layer.adaLN_modulation.weight".into(), vec![2 * d, c]));
            all.push(("output_layer.adaLN_modulation.bias".into(), vec![2 * d]));
        }
        all
    }

    fn llama_tensors(&self, llama: &Llama) -> Vec<(String, Vec<usize>)> {
        let (d, f) = (self.hidden, llama.feed_forward);
        let (q, kv) = (self.heads * llama.head_dim, llama.kv_heads * llama.head_dim);
        let mut all: Vec<(String, Vec<usize>)> = vec![("model.embed_tokens.weight".into(), vec![self.vocab, d])];
        for layer in 0..self.layers {
            let mut add = |name: &str, shape: Vec<usize>| all.push((format!("model.layers.{layer}.{name}"), shape));
            add("input_layernorm.weight", vec![d]);
            for (name, width) in [("q", q), ("k", kv), ("v", kv)] {
                add(&format!("self_attn.{name}_proj.weight"), vec![width, d]);
                if llama.qkv_bias {
                    add(&format!("self_attn.{name}_proj.bias"), vec![width]);
                }
            }
            if llama.qk_norm {
                add("self_attn.q_norm.weight", vec![llama.head_dim]);
                add("self_attn.k_norm.weight", vec![llama.head_dim]);
            }
            add("self_attn.o_proj.weight", vec![d, q]);
            add("post_attention_layernorm.weight", vec![d]);
            add("mlp.gate_proj.weight", vec![f, d]);
            add("mlp.up_proj.weight", vec![f, d]);
            add("mlp.down_proj.weight", vec![d, f]);
        }
        all.push(("model.norm.weight".into(), vec![d]));
        if !llama.tied {
            all.push(("lm_head.weight".into(), vec![self.vocab, d]));
        }
        all
    }
}
