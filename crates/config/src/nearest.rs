//! The valid name that somebody most likely meant.

/// The candidate nearest to `word`, when one is near enough to be meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    let tolerance = (word.chars().count() / 3).max(1);
    let scored = candidates.into_iter().filter_map(|candidate| {
        let distance = distance(&word, &candidate.to_lowercase());
        (distance <= tolerance).then_some((distance, candidate))
    });
    scored.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// ``did you mean `…`?``, when a candidate is near enough.
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(word, candidates).map(|name| format!("did you mean `{name}`?"))
}

/// The number of slips between two names; a missing part before or after an underscore is one.
fn distance(word: &str, candidate: &str) -> usize {
    let is_tail = candidate.strip_suffix(word).is_some_and(|rest| rest.ends_with('_'));
    let is_head = candidate.strip_prefix(word).is_some_and(|rest| rest.starts_with('_'));
    if is_tail || is_head { 1 } else { strsim::damerau_levenshtein(word, candidate) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_and_missing_prefixes_are_understood() {
        let names = ["max_batch_size", "data_type", "TYPE_FP32", "TYPE_FP16", "input", "output"];
        for (word, meant) in [
            ("max_bach_size", Some("max_batch_size")),
            ("FP32", Some("TYPE_FP32")),
            ("type", Some("data_type")),
            ("inputs", Some("input")),
            ("Output", Some("output")),
            ("TYPE_FP31", Some("TYPE_FP32")),
            ("colour", None),
        ] {
            assert_eq!(nearest(word, names), meant, "{word}");
        }
    }
}
