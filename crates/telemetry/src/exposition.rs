//! The Prometheus text format, written as Triton writes it: a counter's name gets no suffix.

use std::fmt::{Display, Write};

use crate::histogram::Histogram;
use crate::semconv::{Family, label};
use crate::summary::Quantiles;

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The bound under which a histogram counts everything.
const INFINITY: &str = "+Inf";

/// Label names with their values.
pub(crate) type Labels<'a> = [(&'a str, &'a str)];

/// A text that grows metric by metric.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
}

impl Exposition {
    /// Starts a metric; its samples must follow before the next one starts.
    pub(crate) fn family(&mut self, family: &Family) {
        let Family { name, help, kind } = family;
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// Writes one value.
    pub(crate) fn sample(&mut self, family: &Family, labels: &Labels, value: impl Display) {
        self.line(family.name, labels, None, value);
    }

    /// Writes the buckets, sum and count of one histogram.
    pub(crate) fn histogram(&mut self, family: &Family, labels: &Labels, histogram: &Histogram) {
        let bucket = format!("{}_bucket", family.name);
        let mut counts = histogram.counts();
        let mut below = 0;
        for (bound, count) in histogram.bounds().zip(&mut counts) {
            below += count;
            self.line(&bucket, labels, Some(&bound.to_string()), below);
        }
        // The count is that of the buckets just written, so that the two never contradict.
        let count: u64 = below + counts.sum::<u64>();
        self.line(&bucket, labels, Some(INFINITY), count);
        self.line(&format!("{}_sum", family.name), labels, None, histogram.exposed_sum());
        self.line(&format!("{}_count", family.name), labels, None, count);
    }

    /// Writes the quantiles, sum and count of one summary.
    pub(crate) fn summary(
        &mut self,
        family: &Family,
        labels: &Labels,
        (asked, quantiles): (&[f64], &Quantiles),
    ) {
        for (quantile, value) in asked.iter().zip(&quantiles.values) {
            let quantile = quantile.to_string();
            let labels = [labels, &[(label::QUANTILE, &*quantile)]].concat();
            self.line(family.name, &labels, None, value);
        }
        self.line(&format!("{}_sum", family.name), labels, None, quantiles.sum_us);
        self.line(&format!("{}_count", family.name), labels, None, quantiles.count);
    }

    /// The whole text.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, name: &str, labels: &Labels, bound: Option<&str>, value: impl Display) {
        self.text.push_str(name);
        let labels = labels.iter().copied();
        let mut opening = '{';
        for (label, value) in labels.chain(bound.map(|bound| ("le", bound))) {
            self.write(format_args!("{opening}{label}=\"{}\"", Escaped(value)));
            opening = ',';
        }
        let closing = if opening == ',' { "}" } else { "" };
        self.write(format_args!("{closing} {value}\n"));
    }

    fn write(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.text.write_fmt(arguments).expect("writing to a string cannot fail");
    }
}

/// A label's value with what the format gives a meaning escaped.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => formatter.write_str("\\\\")?,
                '"' => formatter.write_str("\\\"")?,
                '\n' => formatter.write_str("\\n")?,
                other => formatter.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const FAMILY: Family = Family { name: "x", help: "An x", kind: "counter" };

    #[test]
    fn label_values_are_escaped() {
        let mut exposition = Exposition::default();
        exposition.family(&FAMILY);
        exposition.sample(&FAMILY, &[("a", "q\"b\\s\nn"), ("b", "")], 3);
        exposition.sample(&FAMILY, &[], 4);
        let expected = "# HELP x An x\n# TYPE x counter\nx{a=\"q\\\"b\\\\s\\nn\",b=\"\"} 3\nx 4\n";
        assert_eq!(exposition.finish(), expected);
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_the_count() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(200));
        histogram.observe(Duration::from_secs(100));
        let mut exposition = Exposition::default();
        exposition.histogram(&FAMILY, &[("a", "b")], &histogram);
        let text = exposition.finish();
        for line in [
            "x_bucket{a=\"b\",le=\"0.0001\"} 0\n",
            "x_bucket{a=\"b\",le=\"0.00025\"} 1\n",
            "x_bucket{a=\"b\",le=\"60\"} 1\n",
            "x_bucket{a=\"b\",le=\"+Inf\"} 2\n",
            "x_sum{a=\"b\"} 100.0002\n",
            "x_count{a=\"b\"} 2\n",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
