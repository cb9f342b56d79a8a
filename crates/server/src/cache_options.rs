//! The options of the response cache, with tritonserver's names.

use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use consort_repository::ResponseCache;

/// The response cache.
#[derive(Args, Clone, Debug, Default)]
pub struct CacheOptions {
    /// Keep responses of models that say `response_cache`, as `local,size=BYTES`
    #[arg(long, env = "CONSORT_CACHE_CONFIG", value_name = "CACHE,SETTING")]
    cache_config: Option<CacheConfig>,

    /// Deprecated: the size of `--cache-config local,size=BYTES`
    #[arg(
        long,
        env = "CONSORT_RESPONSE_CACHE_BYTE_SIZE",
        value_name = "BYTES",
        conflicts_with = "cache_config",
        hide = true
    )]
    response_cache_byte_size: Option<usize>,
}

/// A cache in this process, of so many bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CacheConfig(usize);

impl FromStr for CacheConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(("local", setting)) = text.split_once(',') else {
            return Err("the only cache there is is `local`; write `local,size=BYTES`".to_owned());
        };
        let size = setting.strip_prefix("size=").and_then(|size| size.parse().ok());
        size.map(Self).ok_or_else(|| format!("`{setting}` is not `size=BYTES`"))
    }
}

impl CacheOptions {
    /// The cache that the options ask for; `None` when they ask for none, or for one of no size.
    pub fn cache(&self) -> Option<Arc<ResponseCache>> {
        let stated = self.cache_config.as_ref().map(|CacheConfig(size)| *size);
        let size = stated.or(self.response_cache_byte_size).filter(|size| *size > 0);
        size.map(|size| Arc::new(ResponseCache::new(size)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        options: CacheOptions,
    }

    fn parse(arguments: &[&str]) -> Result<Option<Arc<ResponseCache>>, String> {
        let arguments = ["program"].iter().chain(arguments);
        let parsed = Program::try_parse_from(arguments);
        parsed.map(|program| program.options.cache()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_old_and_the_new_option_ask_for_a_cache() {
        assert!(parse(&[]).unwrap().is_none());
        assert!(parse(&["--cache-config=local,size=1024"]).unwrap().is_some());
        assert!(parse(&["--response-cache-byte-size=1024"]).unwrap().is_some());
        assert!(parse(&["--response-cache-byte-size=0"]).unwrap().is_none());
    }

    #[test]
    fn what_is_no_cache_is_refused_with_the_remedy() {
        for (argument, text) in [
            ("--cache-config=redis,host=x", "local,size=BYTES"),
            ("--cache-config=local", "local,size=BYTES"),
            ("--cache-config=local,size=many", "`size=many` is not `size=BYTES`"),
        ] {
            let refused = parse(&[argument]).err().unwrap();
            assert!(refused.contains(text), "{refused}");
        }
        let both = ["--cache-config=local,size=1", "--response-cache-byte-size=1"];
        assert!(parse(&both).is_err());
    }
}
