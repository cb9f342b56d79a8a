//! Guides over a vocabulary of single bytes and some words.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use consort_stage::Code;
use serde_json::{Value, json};

use super::*;

/// The token that ends a text.
const END: Token = 1;

/// A tokenizer of every byte and a few words, and where it lies.
fn tokenizer() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let mut pieces = String::new();
    for byte in 0..=u8::MAX {
        write!(pieces, "\"<0x{byte:02X}>\": {}, ", u32::from(byte) + 2).unwrap();
    }
    let words = r#""true": 258, "▁is": 259, "{\"": 260, "yes": 261, "ye": 262"#;
    let text = format!(
        r#"{{"added_tokens": [{{"id": 0, "content": "<pad>", "special": true}},
            {{"id": 1, "content": "</s>", "special": true}}],
            "decoder": {{"type": "Sequence", "decoders": [
                {{"type": "Replace", "pattern": {{"String": "▁"}}, "content": " "}},
                {{"type": "ByteFallback"}}]}},
            "model": {{"type": "BPE", "vocab": {{{pieces}{words}}}}}}}"#
    );
    let path = folder.path().join("tokenizer.json");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

const VOCABULARY: usize = 263;

/// How many guides these tests have under way at most.
const TEXTS: usize = 16;

fn compiled(guidance: &mut Guidance, kind: &str, text: &str) -> Result<Guide> {
    let source = Source::read(Some(kind.as_bytes()), Some(text.as_bytes()))?.unwrap();
    let mut guide = guidance.guide(source)?;
    let asked_at = Instant::now();
    while !guide.is_compiled()? {
        assert!(asked_at.elapsed() < Duration::from_secs(30), "it is never compiled");
        std::thread::yield_now();
    }
    Ok(guide)
}

fn guidance() -> (tempfile::TempDir, Guidance) {
    let (folder, path) = tokenizer();
    (folder, Guidance::new((Ok(path), VOCABULARY), (TEXTS, 2)))
}

/// The tokens that may come next.
fn allowed(guide: &mut Guide) -> Vec<Token> {
    let mut logits = vec![0.0; VOCABULARY];
    match guide.restrict(&mut logits, &[END]).unwrap() {
        Left::End => vec![END],
        Left::Tokens => {
            let is_left = |token: &Token| logits[*token as usize] > f32::NEG_INFINITY;
            (0..VOCABULARY as Token).filter(is_left).collect()
        }
    }
}

fn byte(byte: u8) -> Token {
    Token::from(byte) + 2
}

/// Feeds a text byte by byte; whether it is whole.
fn feed(guide: &mut Guide, text: &str) -> bool {
    text.bytes().fold(false, |_, next| {
        assert!(allowed(guide).contains(&byte(next)), "{text:?} has no {:?}", char::from(next));
        guide.advance(byte(next)).unwrap()
    })
}

#[test]
fn a_choice_is_one_of_those_that_there_are() {
    let (_folder, mut guidance) = guidance();
    let mut guide = compiled(&mut guidance, "choice", r#"["yes", "yes is", "no"]"#).unwrap();
    assert_eq!(allowed(&mut guide), [byte(b'n'), byte(b'y'), 261, 262]);
    assert!(!guide.advance(261).unwrap());
    // It may end here, or go on: with the word, or with its first byte.
    assert_eq!(allowed(&mut guide), [END, byte(b' '), 259]);
    assert!(guide.advance(259).unwrap(), "nothing can follow");
    let mut guide = compiled(&mut guidance, "choice", r#"["yes", "no"]"#).unwrap();
    assert!(feed(&mut guide, "no"));
}

#[test]
fn there_may_be_many_choices() {
    let (_folder, mut guidance) = guidance();
    let many: Vec<_> = (0..3000).map(|number| format!("number {number}")).collect();
    let text = serde_json::to_string(&many).unwrap();
    let mut guide = compiled(&mut guidance, "choice", &text).unwrap();
    assert!(!feed(&mut guide, "number 299"));
    assert_eq!(
        allowed(&mut guide),
        [&[END], &(b'0'..=b'9').map(byte).collect::<Vec<_>>()[..]].concat()
    );
    assert!(feed(&mut guide, "9"));
}

#[test]
fn an_expression_holds_from_end_to_end() {
    let (_folder, mut guidance) = guidance();
    let mut guide = compiled(&mut guidance, "regex", r"^\d{2}/[a-c]*$").unwrap();
    assert_eq!(allowed(&mut guide), (b'0'..=b'9').map(byte).collect::<Vec<_>>());
    assert!(!feed(&mut guide, "42/"));
    assert_eq!(allowed(&mut guide), [END, byte(b'a'), byte(b'b'), byte(b'c')]);
}

#[test]
fn a_schema_is_followed_with_its_references() {
    let (_folder, mut guidance) = guidance();
    let schema = r##"{"type": "object", "properties": {"a": {"$ref": "#/$defs/flag"}},
        "required": ["a"], "additionalProperties": false,
        "$defs": {"flag": {"type": "boolean"}}}"##;
    let mut guide = compiled(&mut guidance, "json_schema", schema).unwrap();
    assert!(allowed(&mut guide).contains(&260));
    assert!(!feed(&mut guide, "{\"a\":"));
    assert!(allowed(&mut guide).contains(&258));
    assert!(!guide.advance(258).unwrap());
    assert!(feed(&mut guide, "}"));
}

#[test]
fn any_json_is_an_object_or_an_array_and_a_grammar_is_what_it_says() {
    let (_folder, mut guidance) = guidance();
    let source = Source::read(Some(b"json"), None).unwrap().unwrap();
    let mut guide = guidance.guide(source).unwrap();
    while !guide.is_compiled().unwrap() {
        std::thread::yield_now();
    }
    let first = allowed(&mut guide);
    assert!(first.contains(&byte(b'{')) && first.contains(&byte(b'[')));
    assert!(!first.contains(&byte(b'1')));
    let grammar = "start: \"(\" start \")\" | \"x\"";
    assert!(feed(&mut compiled(&mut guidance, "lark", grammar).unwrap(), "((x))"));
}

#[test]
fn what_cannot_be_followed_is_refused_and_says_which_input_it_was() {
    let (_folder, mut guidance) = guidance();
    let guides = [
        ("regex", "(a"),
        ("regex", r"(?<!a)b"),
        ("json_schema", r#"{"type": "thing"}"#),
        ("json_schema", r##"{"$ref": "#/nowhere"}"##),
        ("json_schema", r#"{"$ref": "https://example.com/schema"}"#),
        ("json_schema", r#"{"allOf": [{"type": "string"}, {"type": "number"}]}"#),
        ("json_schema", r##"{"$ref": "#"}"##),
        (
            "json_schema",
            r##"{"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}"##,
        ),
        ("lark", "start: nothing"),
        ("lark", "no grammar"),
        ("lark", "start: /(/"),
        ("ebnf_grammar", "root ::= root"),
        ("ebnf_grammar", "root ::= digit"),
        ("structural_tag", r#"{"structures": [], "triggers": ["<"]}"#),
    ];
    for (kind, text) in guides {
        let asked_at = Instant::now();
        let error = compiled(&mut guidance, kind, text).err();
        let error = error.unwrap_or_else(|| panic!("{kind} {text} is taken"));
        assert!(error.message().contains("`guided_decoding_guide` is not"), "{error}");
        assert!(!error.message().contains("NoExtensionBias"), "{error}");
        assert_eq!(error.code(), consort_stage::Code::InvalidInput, "{text}");
        assert!(asked_at.elapsed() < Duration::from_secs(10), "{text}");
    }
    // The next one is none the worse for it.
    assert!(compiled(&mut guidance, "regex", "a").is_ok());
}

/// Whether a whole text fits a guide.
fn fits(guidance: &mut Guidance, (kind, guide): (&str, &str), text: &str) -> bool {
    let mut guide = compiled(guidance, kind, guide).unwrap();
    let mut is_whole = false;
    for next in text.bytes() {
        if is_whole || !allowed(&mut guide).contains(&byte(next)) {
            return false;
        }
        is_whole = guide.advance(byte(next)).unwrap();
    }
    is_whole || allowed(&mut guide).contains(&END)
}

#[test]
fn a_grammar_in_ebnf_is_followed_character_by_character() {
    let (_folder, mut guidance) = guidance();
    let sums = r#"
        # Sums of numbers, as llama.cpp has them among its examples.
        root  ::= (expr "=" ws term "\n")+
        expr  ::= term ([-+*/] term)*
        term  ::= ident | num | "(" ws expr ")" ws
        ident ::= [a-z] [a-z0-9_]* ws
        num   ::= [0-9]+ ws
        ws    ::= [ \t\n]*
    "#;
    let mut check = |grammar: &str, text: &str, expected: bool| {
        let fits = fits(&mut guidance, ("ebnf_grammar", grammar), text);
        assert_eq!(fits, expected, "{text:?} in {grammar}");
    };
    check(sums, "a +12*( b_2 -3) = c\n", true);
    check(sums, "a=1\nb=2\n", true);
    check(sums, "a + = 1\n", false);
    check(sums, "a = 1 2\n", false);
    check(sums, "a = 1", false);
    let json = r#"
        root   ::= object
        value  ::= object | array | string | number | ("true" | "false" | "null") ws
        object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
        array  ::= "[" ws ( value ("," ws value)* )? "]" ws
        string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
        number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,15})? ws
        ws ::= | " " | "\n" [ \t]{0,20}
    "#;
    check(json, r#"{"a\"\u00e9": [1, -2.5e-3, true, null, {}], "é": ""}"#, true);
    check(json, r#"{"a": [1, ]}"#, false);
    check(json, r#"{"a": "\x"}"#, false);
    // The longest word is not the right one.
    check(r#"root ::= "ab" | "a" "bd""#, "ab", true);
    check(r#"root ::= "ab" | "a" "bd""#, "abd", true);
    check(r#"root ::= [a-z]* "end""#, "legend", true);
    check(r#"root ::= [a-z]* "end""#, "legends", false);
    // A text and its mirror image, choices of nothing, and any character but some.
    let mirrored = r#"root ::= "a" root "a" | "b" root "b" | """#;
    check(mirrored, "abba", true);
    check(mirrored, "abab", false);
    let string = r#"root ::= "\"" [^"\\\x00-\x1f]{2,3} "\"""#;
    check(string, "\"é🦀\"", true);
    check(string, "\"é\"", false);
    check("root ::= . .?", "🦀\n", true);
    check("root ::= \"ha\"{2,}", "hahaha", true);
    check("root ::= \"ha\"{2,}", "ha", false);
    check("root ::= \"ha\"{2} \"!\"{0}", "haha", true);
}

#[test]
fn text_is_free_until_a_trigger_begins_a_part_that_is_described() {
    let (_folder, mut guidance) = guidance();
    let schema = r#"{"type": "object", "properties": {"n": {"type": "integer"}},
        "required": ["n"], "additionalProperties": false}"#;
    let guide = format!(
        r#"{{"type": "structural_tag", "triggers": ["<f=", "[["], "structures": [
            {{"begin": "<f=get>", "schema": {schema}, "end": "</f>"}},
            {{"begin": "<f=getter>", "schema": {{"type": "boolean"}}, "end": "</f>"}},
            {{"begin": "[[", "schema": {{"enum": [1, 12]}}, "end": "]]"}}]}}"#
    );
    let mut check = |text: &str, expected: bool| {
        assert_eq!(fits(&mut guidance, ("structural_tag", &guide), text), expected, "{text:?}");
    };
    check("", true);
    check("nothing of the kind: <f <b> [", true);
    check(r#"I call <f=get>{"n": 5}</f> and"#, true);
    check(r#"<f=get>{"n":5}</f><f=getter>true</f>[[12]] 🦀"#, true);
    check("<f=", false);
    check("<f=set>", false);
    check(r#"<f=get>{"n": "five"}</f>"#, false);
    check("<<f=getter>true</f", false);
    check("[[2]]", false);
    check("[[[1]]", false);
}

#[test]
fn tags_that_no_text_could_have_are_refused() {
    let (_folder, mut guidance) = guidance();
    let item = |begin: &str| json!({"begin": begin, "schema": {"type": "null"}, "end": ""});
    for (triggers, structures, part) in [
        (vec!["<a"], vec![item("<b")], "begins none of"),
        (vec!["<a"], vec![item("<a"), item("<b")], "`structures[1].begin` begins with none"),
        (vec!["<a", "x<a"], vec![item("<a"), item("x<a")], "comes first"),
        (vec![""], vec![item("<a")], "`triggers[0]` is empty"),
        (vec!["<a"], vec![json!({"begin": "<a", "schema": 1, "end": ""})], "no object"),
        (vec!["<a"], vec![json!({"begin": "<a"})], "missing field `schema`"),
    ] {
        let guide = json!({"triggers": triggers, "structures": structures});
        let error = compiled(&mut guidance, "structural_tag", &guide.to_string()).err().unwrap();
        assert!(error.message().contains(part), "{error}");
    }
    let many: Vec<_> = (0..300).map(|number| format!("<{number:03}")).collect();
    let structures: Vec<_> = many.iter().map(|begin| item(begin)).collect();
    for (triggers, structures, part) in [
        (&many[..], &structures[..], "it has 300 `structures`, more than 256"),
        (&many[..], &structures[..9], "it has 300 `triggers`, more than 256"),
    ] {
        let guide = json!({"triggers": triggers, "structures": structures}).to_string();
        let error = compiled(&mut guidance, "structural_tag", &guide).err().unwrap();
        assert!(error.message().contains(part), "{error}");
    }
    let error = compiled(&mut guidance, "structural_tag", r#"{"format": {}}"#).err().unwrap();
    assert!(error.message().contains("`format` is not supported"), "{error}");
}

#[test]
fn without_a_tokenizer_or_with_one_of_another_kind_no_guide_can_be_followed() {
    let refused = |guidance: &mut Guidance| compiled(guidance, "regex", "a").err().unwrap();
    let missing = Err(Error::unsupported("there is no tokenizer"));
    let missing = refused(&mut Guidance::new((missing, VOCABULARY), (TEXTS, 1)));
    assert!(missing.message().contains("no tokenizer"), "{missing}");
    let (_folder, path) = tokenizer();
    std::fs::write(&path, r#"{"decoder": {"type": "CTC"}, "model": {"vocab": {}}}"#).unwrap();
    let mut guidance = Guidance::new((Ok(path.clone()), VOCABULARY), (TEXTS, 1));
    let other = refused(&mut guidance);
    assert!(other.message().contains("the decoder `CTC`"), "{other}");
    std::fs::write(&path, b"\xff").unwrap();
    let unreadable = refused(&mut guidance);
    assert!(unreadable.message().contains("cannot be read"), "{unreadable}");
    for error in [missing, other, unreadable] {
        // It is the model's file that is wrong, not the request.
        assert_eq!((error.code(), error.input()), (Code::Unsupported, Some(GUIDE)), "{error}");
    }
}

#[test]
fn a_guide_is_taken_up_anew_by_every_text_that_has_it() {
    let (_folder, mut guidance) = guidance();
    for _ in 0..3 {
        assert!(feed(&mut compiled(&mut guidance, "regex", "ab?c").unwrap(), "abc"));
    }
}

#[test]
fn end_tokens_come_only_at_an_end_whichever_they_are() {
    let (_folder, mut guidance) = guidance();
    let mut guide = compiled(&mut guidance, "regex", "ab*").unwrap();
    let restrict = |guide: &mut Guide| {
        let mut logits = vec![0.0; VOCABULARY];
        assert_eq!(guide.restrict(&mut logits, &[byte(b'a'), 9_999]).unwrap(), Left::Tokens);
        logits[byte(b'a') as usize]
    };
    // The token that ends this text is one that its guide has a use for, which it then has not.
    assert!(restrict(&mut guide).is_infinite());
    guide.advance(byte(b'a')).unwrap();
    assert!(restrict(&mut guide).is_finite());
}

#[test]
fn there_is_room_for_the_guides_of_all_texts_that_there_can_be() {
    let (_folder, path) = tokenizer();
    let texts = 6000;
    let mut guidance = Guidance::new((Ok(path), VOCABULARY), (texts, 1));
    let source = Source::read(Some(b"json"), None).unwrap().unwrap();
    let guides: Vec<_> = (0..texts).map(|_| guidance.guide(source.clone())).collect();
    assert!(guides.iter().all(Result::is_ok));
}

/// Names that are in order.
fn name(index: usize) -> String {
    let letter = |place: u32| char::from(b'a' + (index / 26_usize.pow(place) % 26) as u8);
    (0..4).rev().map(letter).collect()
}

/// Rules of which each is the next.
fn chain(rules: usize, between: &str, body: impl Fn(&str) -> String) -> String {
    let rule = |index| format!("{}{between}{}\n", name(index), body(&name(index + 1)));
    let rules_of_it: String = (0..rules).map(rule).collect();
    format!("{rules_of_it}{}{between}\"x\"\n", name(rules))
}

/// A schema whose references lead from one to the next, each through so many of these parts.
fn references(links: usize, parts: usize, part: impl Fn(Value) -> Value) -> String {
    let mut definitions = serde_json::Map::new();
    for index in 0..links {
        let link = json!({"$ref": format!("#/$defs/{}", index + 1)});
        let nested = (0..parts).fold(link, |inner, _| part(inner));
        definitions.insert(index.to_string(), nested);
    }
    definitions.insert(links.to_string(), json!({"type": "null"}));
    json!({"$ref": "#/$defs/0", "$defs": definitions}).to_string()
}

#[test]
fn no_guide_leads_so_deep_that_the_stack_ends() {
    let (_folder, mut guidance) = guidance();
    let same = str::to_owned;
    let nested = |next: &str| format!("{}{next}{}", "(".repeat(27), ")".repeat(27));
    let object = |inner| json!({"properties": {"a": inner}});
    let list = |inner| json!({"items": inner});
    let refused = [
        ("ebnf_grammar", format!("root ::= {}", "(\")\"".repeat((1 << 18) - 3))),
        ("ebnf_grammar", format!("root ::= aaaa\n{}", chain(60_000, " ::= ", same))),
        ("lark", format!("start: aaaa\n{}", chain(90_000, ":", same))),
        ("lark", format!("start: AAAA\n{}", chain(90_000, ":", same).to_uppercase())),
        ("lark", format!("start: {}", "a{\"}\",".repeat(150_000))),
        ("lark", format!("start::_: \"a\" %if {}", "not(".repeat(200_000))),
        ("lark", format!("start: %json {}", references(25_000, 0, list))),
        ("json_schema", references(25_000, 0, list)),
        ("json_schema", references(100, 50, object)),
        (
            "structural_tag",
            format!(
                r#"{{"triggers": ["<"], "structures": [{{"begin": "<", "end": "", "schema": {}}}]}}"#,
                references(25_000, 0, list)
            ),
        ),
    ];
    for (kind, text) in refused {
        assert!(text.len() <= 1 << 20, "{kind} has {} bytes", text.len());
        let error = compiled(&mut guidance, kind, &text).err().unwrap();
        assert_eq!(error.code(), Code::InvalidInput, "{error}");
        let is_told = ["nest more than", "too large", "levels"];
        assert!(is_told.iter().any(|told| error.message().contains(told)), "{error}");
    }
    // As deep as it may be.
    let taken = [
        ("ebnf_grammar", format!("root ::= aaaa\n{}", chain(1990, " ::= ", same))),
        ("ebnf_grammar", format!("root ::= aaaa\n{}", chain(70, " ::= ", nested))),
        ("lark", format!("start: aaaa\n{}", chain(1990, ":", same))),
        ("lark", format!("start: aaaa\n{}", chain(70, ":", nested))),
        ("lark", format!("start: AAAA\n{}", chain(1990, ":", same).to_uppercase())),
        ("json_schema", references(1990, 0, list)),
        ("json_schema", references(36, 50, object)),
        ("json_schema", references(38, 100, list)),
        ("regex", format!("{}a{}", "(".repeat(240), ")".repeat(240))),
        ("regex", format!("{}a{}", "(a?".repeat(60), "){0,2}".repeat(60))),
    ];
    for (kind, text) in taken {
        if let Err(error) = compiled(&mut guidance, kind, &text) {
            panic!("{kind}: {error}");
        }
    }
}

#[test]
fn what_the_matcher_refuses_in_ebnf_is_said_with_the_names_of_its_rules() {
    let (_folder, mut guidance) = guidance();
    let mut refused = |grammar: &str| {
        let error = compiled(&mut guidance, "ebnf_grammar", grammar).err().unwrap();
        assert!(!error.message().contains("rule_"), "{error}");
        error.message().to_owned()
    };
    let endless = refused("root ::= item\nitem ::= item");
    assert!(!endless.contains("start"), "{endless}");
    let large = format!("root ::= item\n# it\nitem ::= \"{}\"", "a".repeat(600_000));
    assert!(refused(&large).contains("in the rule `item`: grammar size"), "{large}");
}
