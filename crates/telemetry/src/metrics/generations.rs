//! Writes the metrics of text generation, under OpenTelemetry's names as Prometheus spells them.

use std::sync::Arc;

use crate::exposition::Exposition;
use crate::generation::GenerationMeter;
use crate::histogram::Histogram;
use crate::semconv::{Family, gen_ai, label};

/// A meter with its operation and model.
type Row = ([Box<str>; 2], Arc<GenerationMeter>);

/// One histogram of a meter.
type Select = fn(&GenerationMeter) -> &Histogram;

/// The histograms that have no labels but the operation and the model.
const PACE: [(Family, Select); 2] = [
    (gen_ai::TIME_TO_FIRST_TOKEN, |meter| &meter.first_token),
    (gen_ai::TIME_PER_OUTPUT_TOKEN, |meter| &meter.per_token),
];

/// Writes what is counted of each operation and model.
pub(super) fn encode(rows: &[Row], exposition: &mut Exposition) {
    if rows.is_empty() {
        return;
    }
    exposition.family(&gen_ai::TOKEN_USAGE);
    for (key, meter) in rows {
        for (kind, histogram) in [("input", &meter.input_tokens), ("output", &meter.output_tokens)]
        {
            let labels = [labels(key).as_slice(), &[(label::GEN_AI_TOKEN_TYPE, kind)]].concat();
            exposition.histogram(&gen_ai::TOKEN_USAGE, &labels, histogram);
        }
    }
    exposition.family(&gen_ai::REQUEST_DURATION);
    for (key, meter) in rows {
        for (failure, histogram) in meter.durations() {
            let failure = [(label::ERROR_TYPE, failure)];
            let failure = if failure[0].1.is_empty() { &[][..] } else { &failure };
            let labels = [labels(key).as_slice(), failure].concat();
            exposition.histogram(&gen_ai::REQUEST_DURATION, &labels, &histogram);
        }
    }
    for (family, select) in PACE {
        exposition.family(&family);
        for (key, meter) in rows {
            exposition.histogram(&family, &labels(key), select(meter));
        }
    }
}

fn labels([operation, model]: &[Box<str>; 2]) -> [(&'static str, &str); 2] {
    [(label::GEN_AI_OPERATION, operation), (label::GEN_AI_MODEL, model)]
}
