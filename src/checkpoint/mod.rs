//! Published layouts to and from our models: one file per family. A model folder is `config.json` + `model.safetensors` +
//! `tokenizer.json`, with the key names of its family.

mod config;
pub mod dit;

pub use config::Config;
