//! Sentence embeddings from many callers, beside the same libraries called in batches of the best size.

mod alone;
mod cancelled;
mod served;

use anyhow::{Result, bail, ensure};

use self::alone::Alone;
use self::served::Served;
use super::Settings;
use super::embed::SENTENCE;
use crate::report::{Section, Verdict, number};
use crate::sample::{Sample, Series, micros};

/// Callers at once, and with mixed lengths.
const CALLERS: usize = 16;
const MIXED_CALLERS: usize = 32;

/// The largest batch that the callers fill on each of two instances.
const FILLED: usize = CALLERS / alone::INSTANCES;

/// The lengths of the mixed sentences, in tokens, in an order without a pattern.
const LENGTHS: [usize; 16] = [8, 120, 24, 256, 12, 64, 200, 16, 40, 160, 10, 96, 20, 240, 32, 80];

/// The tokens of a long sentence.
const LONG: usize = 200;

/// Measures everything that batching is for.
pub(super) async fn run(settings: &Settings, title: &str) -> Result<Section> {
    let mut section = Section::new(title, &["", "sentences/s", "p50 µs", "p99 µs"]);
    let long = sentence(LONG);
    let shipped = Served::shipped(settings)?;
    let mut alone = Alone::open(settings)?;
    ensure!(alone.tokens(&long)? == LONG, "both compute every token of a long sentence");

    let apart = Served::apart(settings)?;
    let best = alone.best(SENTENCE, settings.time)?;
    let servers = [&shipped, &apart];
    let short = contest(settings, &mut alone, (SENTENCE, &[best, FILLED]), &servers).await?;
    let [direct, filled, near, far] = &short[..] else { bail!("four contend") };
    row(&mut section, &format!("direct, short, {best} at a time"), direct);
    row(&mut section, &format!("direct, short, {FILLED} at a time"), filled);
    row(&mut section, &format!("one process, short, {CALLERS} callers"), near);
    row(&mut section, &format!("four processes, short, {CALLERS} callers"), far);
    judge_rate(&mut section, "short sentences, one process to direct", near, direct, 0.80);
    judge_rate(&mut section, "short sentences, four processes to direct", far, direct, 0.70);
    drop(apart);

    let best = alone.best(&long, settings.time)?;
    let long = contest(settings, &mut alone, (&long, &[best]), &[&shipped]).await?;
    row(&mut section, &format!("direct, {LONG} tokens, {best} at a time"), &long[0]);
    row(&mut section, &format!("one process, {LONG} tokens, {CALLERS} callers"), &long[1]);
    judge_rate(&mut section, "long sentences, one process to direct", &long[1], &long[0], 0.92);
    drop(alone);

    mixed(settings, &shipped, &mut section).await?;
    drop(shipped);
    single(settings, &mut section).await?;
    let left = cancelled::measure()?;
    let what = "10,000 queued requests are gone once their callers have left";
    section.judge(Verdict::at_most(what, left.as_secs_f64() * 1e3, 50.0, "ms"));
    Ok(section)
}

/// The libraries and servers by turns, all with one sentence.
async fn contest(
    settings: &Settings,
    alone: &mut Alone,
    (sentence, sizes): (&str, &[usize]),
    servers: &[&Served],
) -> Result<Vec<Series>> {
    let mut series: Vec<_> = sizes.iter().map(|_| Series::new("direct")).collect();
    let mut callers = Vec::new();
    for server in servers {
        series.push(Series::new(server.name));
        callers.push(server.callers(&[sentence], CALLERS).await?);
    }
    let mut order: Vec<_> = (0..series.len()).collect();
    for _ in 0..settings.rounds {
        for &place in &order {
            let sample = match place.checked_sub(sizes.len()) {
                None => alone.round(sentence, sizes[place], settings.time)?,
                Some(server) => crate::load::round_of(&mut callers[server], settings.time).await?,
            };
            series[place].push(sample);
        }
        // There and back, so that nobody always comes after the same one.
        order.reverse();
    }
    Ok(series)
}

/// Mixed lengths, beside a tokenizer that pads every sentence to the longest there may be.
async fn mixed(settings: &Settings, shipped: &Served, section: &mut Section) -> Result<()> {
    let fixed = Served::altered(settings, "minilm_tokenize", "\"longest\"", "\"max_length\"")?;
    let sentences: Vec<_> = LENGTHS.into_iter().map(sentence).collect();
    let sentences: Vec<_> = sentences.iter().map(String::as_str).collect();
    let mut series = [Series::new("grouped"), Series::new("fixed")];
    let mut callers = [
        shipped.callers(&sentences, MIXED_CALLERS).await?,
        fixed.callers(&sentences, MIXED_CALLERS).await?,
    ];
    for _ in 0..settings.rounds {
        for (contender, series) in callers.iter_mut().zip(&mut series) {
            series.push(crate::load::round_of(contender, settings.time).await?);
        }
    }
    let [grouped, fixed] = &series;
    row(section, &format!("8 to 256 tokens, {MIXED_CALLERS} callers"), grouped);
    row(section, "the same, every sentence padded to 256", fixed);
    judge_rate(section, "mixed lengths to fixed padding", grouped, fixed, 1.8);
    Ok(())
}

/// One caller with batching on and off, and what many callers gain over one.
///
/// Both programs are new: one that has run large batches before keeps their memory.
async fn single(settings: &Settings, section: &mut Section) -> Result<()> {
    let shipped = Served::shipped(settings)?;
    let off =
        "parameters { key: \"batching\", value: { string_value: \"false\" } }\nname: \"minilm\"";
    let off = Served::altered(settings, "minilm", "name: \"minilm\"", off)?;
    let mut series = ["on", "off", "many"].map(Series::new);
    let mut callers = [
        shipped.callers(&[SENTENCE], 1).await?,
        off.callers(&[SENTENCE], 1).await?,
        shipped.callers(&[SENTENCE], CALLERS).await?,
    ];
    // Short turns, so that a moment in which the machine is busy meets all of them. Whoever comes
    // after the many callers finds the machine as they left it, which is each of the two by turns.
    let mut order = [0, 1, 2];
    for _ in 0..settings.rounds * 3 {
        for place in order {
            let sample = crate::load::round_of(&mut callers[place], settings.time / 3).await?;
            series[place].push(sample);
        }
        order.swap(0, 1);
    }
    let [on, off, many] = &series;
    row(section, "one caller", on);
    row(section, "one caller, batching off", off);
    let p50 = |sample: &Sample| micros(sample.quantile(0.5));
    let what = "one caller, p50 with batching on to off";
    section.judge(Verdict::at_most(what, on.ratio(off, p50), 1.03, "×"));
    let what = format!("{CALLERS} callers to one");
    judge_rate(section, &what, many, on, 2.2);
    Ok(())
}

fn judge_rate(section: &mut Section, what: &str, own: &Series, other: &Series, bar: f64) {
    section.judge(Verdict::at_least(what, own.ratio(other, Sample::rate), bar, "×"));
}

fn row(section: &mut Section, name: &str, series: &Series) {
    section.row([
        name.to_owned(),
        number(series.median(Sample::rate)),
        number(series.median(|sample| micros(sample.quantile(0.5)))),
        number(series.median(|sample| micros(sample.quantile(0.99)))),
    ]);
}

/// A sentence of so many tokens, the two that the tokenizer adds among them.
fn sentence(tokens: usize) -> String {
    vec!["the"; tokens.saturating_sub(2)].join(" ")
}
