//! The options of the rate limiter, with tritonserver's names.

use std::str::FromStr;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use consort_scheduler::{Limiter, Supply};

/// The rate limiter.
#[derive(Args, Clone, Debug)]
pub struct LimitOptions {
    /// Whether instances wait for the resources that their `rate_limiter` names
    #[arg(long, env = "CONSORT_RATE_LIMIT", value_enum, default_value_t = RateLimit::Off)]
    rate_limit: RateLimit,

    /// How much there is of a resource, on every device or one; may be given several times
    #[arg(
        long,
        env = "CONSORT_RATE_LIMIT_RESOURCE",
        value_delimiter = ' ',
        value_name = "NAME:COUNT[:DEVICE]"
    )]
    rate_limit_resource: Vec<Stated>,
}

/// Whether and how instances wait for resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum RateLimit {
    /// They do not; `rate_limiter` has no effect.
    Off,
    /// The instance that ran the fewest times goes first, its count multiplied by its priority.
    ExecutionCount,
}

/// So much of a resource, as it is written on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stated(Supply);

impl FromStr for Stated {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (name, count, device) = match parts[..] {
            [name, count] if !name.is_empty() => (name, count, None),
            [name, count, device] if !name.is_empty() => (name, count, Some(device)),
            _ => return Err("write it as NAME:COUNT or NAME:COUNT:DEVICE".to_owned()),
        };
        let number = |what: &str, text: &str| {
            text.parse::<u32>().map_err(|_| format!("the {what} `{text}` is not a whole number"))
        };
        let device = device.map(|device| number("device", device)).transpose()?;
        Ok(Self(Supply { name: name.into(), count: number("count", count)?, device }))
    }
}

impl LimitOptions {
    /// The limiter that the options ask for; `None` when instances do not wait.
    pub fn limiter(&self) -> Option<Arc<Limiter>> {
        let supplies = self.rate_limit_resource.iter().map(|Stated(supply)| supply.clone());
        (self.rate_limit == RateLimit::ExecutionCount)
            .then(|| Arc::new(Limiter::new(supplies.collect())))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        options: LimitOptions,
    }

    fn parse(arguments: &[&str]) -> Result<LimitOptions, String> {
        let arguments = ["program"].iter().chain(arguments);
        let parsed = Program::try_parse_from(arguments);
        parsed.map(|program| program.options).map_err(|error| error.to_string())
    }

    #[test]
    fn instances_wait_only_when_they_are_told_to() {
        assert!(parse(&["--rate-limit-resource=R:5"]).unwrap().limiter().is_none());
        assert!(parse(&["--rate-limit=execution_count"]).unwrap().limiter().is_some());
        assert!(parse(&["--rate-limit=priority"]).is_err());
    }

    #[test]
    fn a_resource_has_a_name_a_count_and_perhaps_a_device() {
        let supply = |count, device| Stated(Supply { name: "R".into(), count, device });
        assert_eq!("R:5".parse(), Ok(supply(5, None)));
        assert_eq!("R:5:1".parse(), Ok(supply(5, Some(1))));
        for (wrong, text) in [
            ("R", "NAME:COUNT"),
            (":5", "NAME:COUNT"),
            ("R:1:2:3", "NAME:COUNT"),
            ("R:-1", "the count `-1`"),
            ("R:1:x", "the device `x`"),
        ] {
            let refused = wrong.parse::<Stated>().unwrap_err();
            assert!(refused.contains(text), "{refused}");
        }
    }
}
