//! A grammar in the matcher's notation, and what is said of it in the words of its own.

/// A grammar in the matcher's notation.
#[derive(Debug)]
pub(super) struct Translated {
    /// A line for each rule.
    pub(super) lark: String,
    /// What the rules of those lines are called in the grammar.
    pub(super) names: Vec<String>,
    /// What all rules are called there, by the number that they have here.
    pub(super) numbered: Vec<String>,
}

impl Translated {
    /// What the matcher says of its grammar, said of the one that was translated: places within it
    /// become rules, and rules have their names.
    pub(super) fn in_its_words(&self, reason: &str) -> String {
        let (line, rest) = split_place(reason);
        let rule = line.and_then(|line| self.names.get(line.checked_sub(1)?));
        let mut told = rule.map_or(String::new(), |name| format!("in the rule `{name}`: "));
        let mut parts = rest.split("rule_");
        told += parts.next().unwrap_or_default();
        for part in parts {
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, behind) = part.split_at(digits);
            match number.parse().ok().and_then(|number: usize| self.numbered.get(number)) {
                Some(name) => told += name,
                None => told = told + "rule_" + number,
            }
            told += behind;
        }
        told.replace("\"start\"", "\"root\"")
    }
}

/// Takes the place off the beginning of a reason, `at 2(14): …`, and gives its line.
fn split_place(reason: &str) -> (Option<usize>, &str) {
    let place = || {
        let (place, rest) = reason.split_once("): ")?;
        let (line, column) = place.strip_prefix("at ").unwrap_or(place).split_once('(')?;
        column.parse::<usize>().ok()?;
        Some((line.parse().ok()?, rest))
    };
    place().map_or((None, reason), |(line, rest)| (Some(line), rest))
}

#[cfg(test)]
mod tests {
    use super::super::ebnf;

    #[test]
    fn what_the_matcher_says_is_said_of_the_grammar() {
        let translated = ebnf::translate("# it\nroot ::= digit\ndigit ::= [0-9]").unwrap();
        let told = |reason| translated.in_its_words(reason);
        assert_eq!(told("at 2(9): rule_1 is wrong"), "in the rule `digit`: digit is wrong");
        assert_eq!(told("1(1): \"start\", rule_17"), "in the rule `root`: \"root\", rule_17");
        assert_eq!(told("too large (limit: 5): 3"), "too large (limit: 5): 3");
    }
}
