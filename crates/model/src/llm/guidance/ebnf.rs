//! Translates grammars in the EBNF of xgrammar and llama.cpp (GBNF) to the notation of the matcher.
//!
//! Their grammars are over characters: nothing decides where a word ends. The matcher's are over
//! lexemes, of which it takes the longest. So every lexeme here is one character, and a text is
//! taken apart as the grammar says and in no other way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Chars;

use super::limits::Depth;
use super::mistake::{Mistake, Place};
use super::translated::Translated;

/// The rule that describes the whole text, and its name in the matcher's notation.
const ROOT: &str = "root";
const START: &str = "start";

/// Translates a grammar.
pub(super) fn translate(grammar: &str) -> Result<Translated, Mistake> {
    let mut reader = Reader::new(grammar);
    let (mut lark, mut names) = (String::new(), Vec::new());
    reader.skip_space();
    while reader.peek().is_some() {
        let at = reader.at;
        let name = reader.name().ok_or_else(|| reader.unexpected("the name of a rule"))?;
        reader.skip_space();
        if !reader.takes("::=") {
            return Err(reader.unexpected("`::=`"));
        }
        reader.depth.begin_rule(at)?;
        let rule = reader.rule(&name, at);
        if std::mem::replace(&mut rule.is_defined, true) {
            return Err(Mistake { at, what: format!("rule `{name}` is defined twice") });
        }
        let number = rule.number;
        let body = reader.alternatives()?;
        let _ = writeln!(lark, "{}: {body}", lark_name(&name, number));
        names.push(name);
    }
    let at = reader.at;
    if !reader.rules.contains_key(ROOT) {
        return Err(Mistake { at, what: format!("no rule is called `{ROOT}`") });
    }
    if let Some((name, rule)) = reader.rules.iter().find(|(_, rule)| !rule.is_defined) {
        return Err(Mistake { at: rule.first, what: format!("no rule is called `{name}`") });
    }
    let mut numbered: Vec<_> = reader.rules.into_iter().collect();
    numbered.sort_unstable_by_key(|(_, rule)| rule.number);
    let numbered = numbered.into_iter().map(|(name, _)| name).collect();
    Ok(Translated { lark, names, numbered })
}

/// The matcher wants names in small letters.
fn lark_name(name: &str, number: usize) -> String {
    if name == ROOT { START.to_owned() } else { format!("rule_{number}") }
}

/// A rule that was seen.
struct Rule {
    number: usize,
    /// Where it was seen first.
    first: Place,
    is_defined: bool,
}

/// Reads a grammar from its first character to its last.
struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    at: Place,
    depth: Depth,
    rules: BTreeMap<String, Rule>,
}

impl<'a> Reader<'a> {
    fn new(grammar: &'a str) -> Self {
        Self::at(grammar.chars().peekable(), Place::FIRST)
    }

    fn at(rest: Peekable<Chars<'a>>, at: Place) -> Self {
        Self { rest, at, depth: Depth::default(), rules: BTreeMap::new() }
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        self.at.pass(next);
        Some(next)
    }

    /// Takes this word, if it comes next.
    fn takes(&mut self, word: &str) -> bool {
        let mut ahead = self.rest.clone();
        let is_next = word.chars().all(|letter| ahead.next() == Some(letter));
        if is_next {
            for _ in word.chars() {
                self.next();
            }
        }
        is_next
    }

    /// Skips spaces, ends of lines and comments.
    fn skip_space(&mut self) {
        while let Some(next) = self.peek() {
            if next == '#' {
                while self.peek().is_some_and(|next| next != '\n') {
                    self.next();
                }
            } else if next.is_whitespace() {
                self.next();
            } else {
                return;
            }
        }
    }

    /// The name of a rule. A dot is part of it only within: behind it stands for any character.
    fn name(&mut self) -> Option<String> {
        let is_of_name = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
        let mut name = String::new();
        while let Some(letter) = self.peek() {
            let is_within = || {
                let next = self.rest.clone().nth(1);
                letter == '.' && !name.is_empty() && next.is_some_and(is_of_name)
            };
            if !is_of_name(letter) && !is_within() {
                break;
            }
            name.push(letter);
            self.next();
        }
        (!name.is_empty()).then_some(name)
    }

    /// Whether what comes next is another rule, whose name and `::=` are read on a copy.
    fn is_at_rule(&mut self) -> bool {
        let mut ahead = Reader::at(self.rest.clone(), self.at);
        ahead.name().is_some() && {
            ahead.skip_space();
            ahead.takes("::=")
        }
    }

    /// The rule of this name, which is noted where it is new.
    fn rule(&mut self, name: &str, at: Place) -> &mut Rule {
        let number = self.rules.len();
        let new = || Rule { number, first: at, is_defined: false };
        self.rules.entry(name.to_owned()).or_insert_with(new)
    }

    fn alternatives(&mut self) -> Result<String, Mistake> {
        let mut alternatives = vec![self.sequence()?];
        while self.takes("|") {
            alternatives.push(self.sequence()?);
        }
        Ok(alternatives.join(" | "))
    }

    /// Everything up to the next alternative, the end of a group or another rule.
    fn sequence(&mut self) -> Result<String, Mistake> {
        let mut items = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                None | Some('|' | ')') => break,
                Some(_) if self.is_at_rule() => break,
                Some(_) => {
                    let item = self.item()?;
                    items.push(self.repeated(item)?);
                }
            }
        }
        // A sequence of nothing is the empty text.
        Ok(if items.is_empty() { r#""""#.to_owned() } else { items.join(" ") })
    }

    /// One thing in the matcher's notation, which may be repeated as it is.
    fn item(&mut self) -> Result<String, Mistake> {
        let at = self.at;
        if let Some(name) = self.name() {
            let number = self.rule(&name, at).number;
            return Ok(lark_name(&name, number));
        }
        match self.peek() {
            Some('"') => self.literal(),
            Some('[') => self.class(),
            Some('.') => {
                self.next();
                Ok("/(?s:.)/".to_owned())
            }
            Some('(') => {
                self.depth.open(at)?;
                self.next();
                if self.peek() == Some('=') {
                    return Err(Mistake { at, what: "look-ahead is not supported".into() });
                }
                let group = self.alternatives()?;
                if !self.takes(")") {
                    return Err(self.unexpected(&format!(
                        "`)` for the `(` in line {}, column {}",
                        at.line, at.column
                    )));
                }
                self.depth.close();
                Ok(format!("({group})"))
            }
            _ => Err(self.unexpected("a string, a class of characters, a rule or a group")),
        }
    }

    /// The item as often as what stands behind it says.
    fn repeated(&mut self, item: String) -> Result<String, Mistake> {
        match self.peek() {
            Some(sign @ ('*' | '+' | '?')) => {
                self.next();
                Ok(format!("{item}{sign}"))
            }
            Some('{') => {
                let at = self.at;
                self.next();
                let least = self.number()?;
                let most = if self.takes(",") { self.number()? } else { least };
                if !self.takes("}") {
                    return Err(self.unexpected("`}`"));
                }
                let wrong = |what: &str| Err(Mistake { at, what: what.to_owned() });
                match (least, most) {
                    (None, None) => wrong("a repetition says how often"),
                    (Some(least), Some(most)) if least > most => {
                        wrong("a repetition has more at least than at most")
                    }
                    (_, Some(0)) => Ok(r#""""#.to_owned()),
                    (least, most) => {
                        let most = most.map_or(String::new(), |most| most.to_string());
                        Ok(format!("{item}{{{},{most}}}", least.unwrap_or(0)))
                    }
                }
            }
            _ => Ok(item),
        }
    }

    /// How often something comes, a number that is far above any use and far below any overflow.
    fn number(&mut self) -> Result<Option<u32>, Mistake> {
        const MOST: u32 = 100_000;
        self.skip_space();
        let at = self.at;
        let mut number = None;
        while let Some(digit) = self.peek().and_then(|digit| digit.to_digit(10)) {
            number = Some(number.unwrap_or(0) * 10 + digit);
            if number > Some(MOST) {
                return Err(Mistake { at, what: format!("a repetition is above {MOST}") });
            }
            self.next();
        }
        self.skip_space();
        Ok(number)
    }

    /// A string, character by character.
    fn literal(&mut self) -> Result<String, Mistake> {
        let at = self.at;
        self.next();
        let mut characters = Vec::new();
        loop {
            match self.peek() {
                None | Some('\n') => {
                    return Err(Mistake { at, what: "a string does not end".into() });
                }
                Some('"') => break,
                Some(_) => {
                    let character = self.character()?;
                    characters.push(format!("/[{}]/", escaped(character)));
                }
            }
        }
        self.next();
        Ok(match characters.len() {
            0 => r#""""#.to_owned(),
            1 => characters.swap_remove(0),
            // Repeated as a whole.
            _ => format!("({})", characters.join(" ")),
        })
    }

    /// A class of characters, `[a-z]` or `[^"\\]`.
    fn class(&mut self) -> Result<String, Mistake> {
        let at = self.at;
        self.next();
        let is_negated = self.takes("^");
        let mut class = String::new();
        loop {
            match self.peek() {
                None | Some('\n') => {
                    return Err(Mistake { at, what: "a class of characters does not end".into() });
                }
                Some(']') => break,
                Some(_) => self.range(&mut class)?,
            }
        }
        self.next();
        if class.is_empty() {
            return Err(Mistake { at, what: "a class has no characters".into() });
        }
        Ok(format!("/[{}{class}]/", if is_negated { "^" } else { "" }))
    }

    /// A character of a class, or all from one to another.
    fn range(&mut self, class: &mut String) -> Result<(), Mistake> {
        let at = self.at;
        let first = self.character()?;
        class.push_str(&escaped(first));
        let mut ahead = self.rest.clone();
        // At the end of a class it stands for itself.
        let is_range = ahead.next() == Some('-') && !matches!(ahead.next(), Some(']') | None);
        if is_range {
            self.next();
            let last = self.character()?;
            if last < first {
                return Err(Mistake { at, what: format!("{first:?} comes after {last:?}") });
            }
            class.push('-');
            class.push_str(&escaped(last));
        }
        Ok(())
    }

    /// A character of a string or a class.
    fn character(&mut self) -> Result<char, Mistake> {
        let at = self.at;
        let wrong = |what: String| Mistake { at, what };
        let next = self.next().ok_or_else(|| wrong("the grammar ends too early".into()))?;
        if next != '\\' {
            return Ok(next);
        }
        let sign = self.next().ok_or_else(|| wrong("the grammar ends too early".into()))?;
        let character = match sign {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            'e' => '\x1b',
            '0' => '\0',
            '\\' | '"' | '\'' | '[' | ']' | '-' | '^' | '/' | '.' | '?' => sign,
            'x' => self.coded(2, at)?,
            'u' => self.coded(4, at)?,
            'U' => self.coded(8, at)?,
            other => return Err(wrong(format!("`\\{other}` is no escape"))),
        };
        Ok(character)
    }

    /// The character with a number of so many hexadecimal digits.
    fn coded(&mut self, digits: usize, at: Place) -> Result<char, Mistake> {
        let mut code = 0;
        for _ in 0..digits {
            let digit = self.peek().and_then(|digit| digit.to_digit(16));
            let Some(digit) = digit else {
                return Err(self.unexpected(&format!("{digits} hexadecimal digits")));
            };
            self.next();
            code = code * 16 + digit;
        }
        char::from_u32(code)
            .ok_or_else(|| Mistake { at, what: format!("U+{code:04X} is no character") })
    }

    fn unexpected(&mut self, wanted: &str) -> Mistake {
        let found = self.peek();
        let found = found.map_or("the end".to_owned(), |found| format!("{found:?}"));
        Mistake { at: self.at, what: format!("expected {wanted}, found {found}") }
    }
}

/// A character of the matcher's expressions, within a class or by itself.
pub(super) fn escaped(character: char) -> String {
    format!("\\x{{{:X}}}", u32::from(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_lines_and_strings_characters() {
        let grammar =
            "# numbers\nroot ::= num-ber (\",\" num-ber)* |\n  \"\"\nnum-ber ::= [1-9\\]-] .{2,}";
        assert_eq!(
            translate(grammar).unwrap().lark,
            "start: rule_1 (/[\\x{2C}]/ rule_1)* | \"\"\n\
             rule_1: /[\\x{31}-\\x{39}\\x{5D}\\x{2D}]/ /(?s:.)/{2,}\n"
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (grammar, mistake) in [
            ("", "line 1, column 1: no rule is called `root`"),
            ("top ::= \"a\"", "line 1, column 12: no rule is called `root`"),
            ("root ::= \"a\"\n  digit", "line 2, column 3: no rule is called `digit`"),
            ("root ::= \"a", "line 1, column 10: a string does not end"),
            ("root ::= [a", "line 1, column 10: a class of characters does not end"),
            ("root ::= []", "line 1, column 10: a class has no characters"),
            ("root ::= [z-a]", "line 1, column 11: 'z' comes after 'a'"),
            ("root ::= \"\\q\"", "line 1, column 11: `\\q` is no escape"),
            ("root ::= \"\\x4\"", "line 1, column 14: expected 2 hexadecimal digits, found '\"'"),
            ("root ::= \"\\uD800\"", "line 1, column 11: U+D800 is no character"),
            (
                "root ::= (\"a\"\n",
                "line 2, column 1: expected `)` for the `(` in line 1, column 10, found the end",
            ),
            ("root = \"a\"", "line 1, column 6: expected `::=`, found '='"),
            ("root ::= \"a\"{3,1}", "column 13: a repetition has more at least than at most"),
            ("root ::= \"a\"{}", "column 13: a repetition says how often"),
            ("root ::= \"a\"{999999}", "column 14: a repetition is above 100000"),
            ("root ::= (= \"a\")", "line 1, column 10: look-ahead is not supported"),
            ("root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: rule `root` is defined twice"),
            ("root ::= <tool>", "line 1, column 10: expected a string,"),
            ("root ::= \"a\" )", "line 1, column 14: expected the name of a rule, found ')'"),
        ] {
            let found = translate(grammar).unwrap_err().to_string();
            assert!(found.contains(mistake), "{grammar:?}: {found}");
        }
    }

    #[test]
    fn a_dot_behind_a_name_is_any_character_and_digits_may_begin_one() {
        let lark = |grammar| translate(grammar).unwrap().lark;
        assert_eq!(
            lark("root ::= 2d.\n2d ::= \"a\""),
            "start: rule_1 /(?s:.)/\nrule_1: /[\\x{61}]/\n"
        );
        assert_eq!(lark("root ::= a.b\na.b ::= ."), "start: rule_1\nrule_1: /(?s:.)/\n");
        assert_eq!(
            lark("root ::= a.{2}\na ::= ."),
            "start: rule_1 /(?s:.)/{2,2}\nrule_1: /(?s:.)/\n"
        );
    }

    #[test]
    fn what_nests_too_deep_is_told_with_its_place_whatever_stands_in_strings() {
        let nested =
            |depth: usize| format!("root ::= {}\"ab\"{}", "(".repeat(depth), ")".repeat(depth));
        assert!(translate(&nested(27)).is_ok());
        let mistake = translate(&nested(28)).unwrap_err().to_string();
        assert_eq!(mistake, "line 1, column 37: brackets nest more than 27 deep");
        let hidden = format!("root ::= {}", "(\")\"".repeat(260_000));
        let mistake = translate(&hidden).unwrap_err().to_string();
        assert_eq!(mistake, "line 1, column 118: brackets nest more than 27 deep");
    }

    #[test]
    fn a_grammar_has_only_so_many_rules() {
        let chain = |rules: usize| {
            let rule = |number| format!("r{number} ::= r{}\n", number + 1);
            let rules: String = (0..rules).map(rule).collect();
            translate(&format!("root ::= r0\n{rules}r{} ::= .", 9999))
        };
        let mistake = chain(60_000).unwrap_err().to_string();
        assert!(mistake.contains("line 2001, column 1: the grammar is too large"), "{mistake}");
    }
}
