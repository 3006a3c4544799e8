//! The flags that choose an unmasking rule. What the rules do is the library's.

use bd3::sample::{Budget, Knobs, Rule, Split};
use bd3::{Error, Result};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};

/// Which masks of a block become known in a pass.
#[derive(Args, Clone, Debug)]
pub struct RuleArgs {
    /// Which masks of a block become known in a pass
    #[arg(long, value_name = "NAME", default_value = "first-hitting", value_parser = names(), help_heading = "Blocks")]
    rule: String,
    /// Good text rather than few passes: rule entropy-bound at 0.1
    #[arg(long, conflicts_with_all = ["rule", "fast"], help_heading = "Blocks")]
    quality: bool,
    /// Few passes rather than the best text: rule factor at 1
    #[arg(long, conflicts_with = "rule", help_heading = "Blocks")]
    fast: bool,
    /// Rules threshold, dynamic, klass, hierarchy, credit: a probability
    #[arg(allow_negative_numbers = true, long, value_name = "X", help_heading = "Blocks")]
    threshold: Option<f64>,
    /// Rules that count steps: how many per block
    #[arg(long, value_name = "N", help_heading = "Blocks")]
    steps: Option<usize>,
    /// Rules that count steps: how these share the rows; default: the masks evenly
    #[arg(long, value_name = "NAME", value_parser = Split::NAMES, help_heading = "Blocks")]
    share: Option<String>,
    /// Rule factor: larger takes more rows at once
    #[arg(allow_negative_numbers = true, long, value_name = "X", help_heading = "Blocks")]
    factor: Option<f64>,
    /// Rule entropy-bound: nats; larger takes more rows at once
    #[arg(allow_negative_numbers = true, long, value_name = "X", help_heading = "Blocks")]
    bound: Option<f64>,
    /// Rule hierarchy: the best row of a gap needs this probability; default: 0.62, or --threshold where that is less
    #[arg(allow_negative_numbers = true, long, value_name = "X", help_heading = "Blocks")]
    low: Option<f64>,
    /// Rule klass: nats that a row's distribution may move in a pass; default: 0.01
    #[arg(allow_negative_numbers = true, long, value_name = "X", help_heading = "Blocks")]
    drift: Option<f64>,
    /// Rule klass: passes that it must stand still for; default: 2
    #[arg(long, value_name = "N", help_heading = "Blocks")]
    stable: Option<usize>,
    /// Passes for a block, at most: where the rule takes longer, the best of its other proposals are taken too
    #[arg(long, value_name = "N", help_heading = "Blocks")]
    passes: Option<usize>,
    /// Milliseconds for a block, as far as whole passes allow; the text then depends on the machine
    #[arg(long, value_name = "MS", help_heading = "Blocks")]
    budget_ms: Option<u64>,
}

impl RuleArgs {
    /// What a block may cost.
    pub fn budget(&self) -> Budget {
        Budget { passes: self.passes, ms: self.budget_ms }
    }

    /// The rule asked for.
    pub fn rule(&self) -> Result<Rule> {
        let knobs = Knobs {
            steps: self.steps,
            share: self.share.as_deref().map(Split::named).transpose()?,
            threshold: self.threshold,
            low: self.low,
            factor: self.factor,
            bound: self.bound,
            drift: self.drift,
            stable: self.stable,
        };
        let preset = match (self.quality, self.fast) {
            (true, _) => Some(("--quality", Rule::quality())),
            (_, true) => Some(("--fast", Rule::fast())),
            _ => None,
        };
        match preset {
            Some((flag, _)) if knobs != Knobs::default() => {
                Err(Error::value(flag, "no other number for a rule, since it sets them", "one"))
            }
            Some((_, rule)) => Ok(rule),
            None => Rule::named(&self.rule, knobs),
        }
    }
}

fn names() -> PossibleValuesParser {
    let value = |name: &&'static str| PossibleValue::new(*name).help(Rule::about(name).unwrap_or_default());
    PossibleValuesParser::new(Rule::NAMES.iter().map(value))
}
